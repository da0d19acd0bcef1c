//! The sources of a configuration over each other, and what is refused.

use super::*;
use clap::Parser;

fn machine(line: &[&str]) -> (Global, Machine) {
    let line = ["vc"].iter().chain(line);
    let cli = crate::cli::Cli::try_parse_from(line).unwrap();
    let crate::cli::Command::Config(machine) = cli.command else { panic!("config") };
    (cli.global, *machine)
}

/// With one file, and the options of a command line.
fn load(file: &str, line: &[&str]) -> Result<Config, Failure> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    std::fs::write(&path, file).unwrap();
    let (mut global, machine) = machine(line);
    global.config = Some(path);
    Config::load(&global, &machine)
}

fn refused(loaded: Result<Config, Failure>) -> String {
    loaded.unwrap_err().line()
}

#[test]
fn each_source_wins_over_those_before() {
    let file = "[hypervisor.qemu]\ndefault_memory = 512\ndefault_vcpus = 2\nkernel_params = 'quiet'\n";
    let line = ["--set", "hypervisor.qemu.default_vcpus=3", "config", "--cpus", "4"];
    let mut config = load(file, &line).unwrap();
    assert_eq!(config.number("hypervisor.qemu.default_memory"), 512);
    assert!(matches!(config.origin("hypervisor.qemu.default_memory"), Origin::File(_)));
    assert_eq!(config.number("hypervisor.qemu.default_vcpus"), 4);
    assert_eq!(config.origin("hypervisor.qemu.default_vcpus"), &Origin::Option("--cpus"));
    assert_eq!(config.text("hypervisor.qemu.machine_type"), "q35");
    assert_eq!(config.origin("hypervisor.qemu.machine_type"), &Origin::Default);
    config.take_variables(|name| (name == "VC_DEFAULT_MEMORY").then(|| "768".into())).unwrap();
    assert_eq!(config.number("hypervisor.qemu.default_memory"), 768);
    assert_eq!(config.origin("hypervisor.qemu.default_memory").to_string(), "VC_DEFAULT_MEMORY");
}

#[test]
fn what_is_no_key_is_refused_with_those_there_are() {
    let said = refused(load("[hypervisor.qemu]\ndefault_memry = 1\n", &["config"]));
    assert!(said.contains("hypervisor.qemu.default_memry") && said.contains("default_memory"), "{said}");
    let said = refused(load("[hypervisor.clh]\npath = 'x'\n", &["config"]));
    assert!(said.contains("there is no such section; there are hypervisor.qemu"), "{said}");
    let said = refused(load("debug = true\n", &["config"]));
    assert!(said.contains("debug"), "{said}");
    let said = refused(load("", &["--set", "hypervisor.qemu.nothing=1", "config"]));
    assert!(said.contains("(--set)"), "{said}");
}

#[test]
fn a_value_of_another_type_is_refused_with_who_said_so() {
    let said = refused(load("[hypervisor.qemu]\ndefault_memory = '1G'\n", &["config"]));
    assert!(said.contains("should be of type integer") && said.contains("config.toml"), "{said}");
    let said = refused(load("[hypervisor.qemu]\nenable_annotations = [1]\n", &["config"]));
    assert!(said.contains("list of strings"), "{said}");
    let said = refused(load("[hypervisor.qemu]\n\nkernel = \n", &["config"]));
    assert!(said.contains("line 3"), "{said}");
    let said = refused(load("", &["--set", "runtime.enable_debug=1", "config"]));
    assert!(said.contains("\"1\" is no boolean"), "{said}");
    let (global, machine) = machine(&["--config", "/nonexistent/config.toml", "config"]);
    let said = refused(Config::load(&global, &machine));
    assert!(said.contains("/nonexistent/config.toml"), "{said}");
}

#[test]
fn annotations_set_what_the_list_allows() {
    let name = "io.katacontainers.config.hypervisor.default_memory";
    let with = |config: Config, pairs: &[(&str, &str)]| config.with_annotations(pairs.iter().copied());
    let said = refused(with(load("", &["config"]).unwrap(), &[(name, "1024")]));
    assert!(said.contains("is not allowed") && said.contains("enable_annotations"), "{said}");
    let allowed = "[hypervisor.qemu]\nenable_annotations = ['default_memory', 'path']\n";
    let allowed = load(allowed, &["config", "--memory", "512M"]).unwrap();
    let config = with(allowed.clone(), &[(name, "1024"), ("org.example", "x")]).unwrap();
    assert_eq!(config.number("hypervisor.qemu.default_memory"), 1024);
    let said = refused(with(allowed.clone(), &[(name, "much")]));
    assert!(said.contains(&format!("annotation {name}")), "{said}");
    // Programs of the host are nobody's but the host's, whatever the list says.
    let said = refused(with(allowed.clone(), &[("io.katacontainers.config.hypervisor.path", "/bin/sh")]));
    assert!(said.contains("is known"), "{said}");
    with(allowed, &[("io.katacontainers.config.runtime.disable_guest_empty_dir", "true")]).unwrap();
}

#[test]
fn what_is_printed_is_a_configuration_with_the_same_values() {
    let file = "[hypervisor.qemu]\nenable_annotations = ['a', 'b']\nkernel_params = 'x=\"1\" y'\n";
    let config = load(file, &["config"]).unwrap();
    let printed = show::text(&config);
    let again = load(&printed, &["config"]).unwrap();
    for key in &KEYS {
        assert_eq!(again.setting(key.name).value, config.setting(key.name).value, "{}", key.name);
    }
    assert!(printed.contains("machine_type = \"q35\"  # default\n"), "{printed}");
}

#[test]
fn the_document_has_every_key() {
    let document = include_str!("../../../../docs/CONFIGURATION.md");
    for key in &KEYS {
        let row = format!("| `{}` | `{}` | `{}` | {} |", key.name, key.default(), key.variable, key.about);
        assert!(document.contains(&row), "docs/CONFIGURATION.md should have:\n{row}");
    }
}
