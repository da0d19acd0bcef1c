//! Generates messages, clients and servers from `proto/`, in pure Rust: no `protoc` is needed.

use std::path::{Path, PathBuf};
use ttrpc_codegen::{Codegen, Customize, ProtobufCustomize};

fn main() -> std::io::Result<()> {
    println!("cargo::rerun-if-changed=proto");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR for build scripts"));
    Codegen::new()
        .out_dir(&out)
        .inputs(["agent", "csi", "health", "oci", "types"].map(|name| format!("proto/{name}.proto")))
        .include("proto")
        .rust_protobuf()
        // Without reflection: it doubles the code, and nothing here needs it.
        .rust_protobuf_customize(ProtobufCustomize::default().lite_runtime(true))
        .customize(Customize { async_all: true, ..Default::default() })
        .run()?;
    for service in ["agent", "health"] {
        answer_unimplemented(&out.join(format!("{service}_ttrpc.rs")))?;
    }
    // The generator's own mod.rs starts with inner attributes, which `include!` cannot take.
    let modules = ["agent", "agent_ttrpc", "csi", "health", "health_ttrpc", "oci", "types"];
    std::fs::write(out.join("modules.rs"), modules.map(|module| format!("pub mod {module};\n")).concat())
}

/// Makes a method that a server leaves out answer UNIMPLEMENTED, as an unknown method does.
///
/// The generator's choice, NOT_FOUND, means "no such container or process" in this protocol.
fn answer_unimplemented(generated: &Path) -> std::io::Result<()> {
    let code = std::fs::read_to_string(generated)?;
    let (theirs, ours) = ("::ttrpc::Code::NOT_FOUND", "::ttrpc::Code::UNIMPLEMENTED");
    assert!(code.contains(theirs), "ttrpc-codegen no longer answers {theirs}: remove this step");
    std::fs::write(generated, code.replace(theirs, ours))
}
