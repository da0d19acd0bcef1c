//! Which tests belong to the suite, and which of them a nested host runs. Both are in cargo-nextest's language of filtersets.

/// The test programs of the suite, as cargo's `--test` has them: no other is built.
pub(super) const PROGRAMS: [&str; 3] = ["vm", "vm_*", "live"];

/// The suite: whatever boots a machine, and what depends on the host's kernel.
pub(super) const ALL: &str = "binary(/^vm(_|$)/) | (package(vc-mountinfo) & binary(live))";

/// What a nested host runs when nobody names a test: what KVM, the kernel's vsock, VFIO, device mapper or another version
/// of the kernel can make different. What happens within a guest is the same there, so a row of a table is not run again
/// (`vc-guest`, `oci::`, `output::`, `terminal::`, `bad_input::`), and neither is a test of many rounds (`soak`) or of many
/// boots that another has the parts of.
///
/// A test that a host like that is needed for goes where a line below finds it: `smoke_` in its name, or one of these
/// programs and modules.
pub(super) const NESTED: &[&str] = &[
    // The hypervisor's obligations, and how a machine dies, with KVM below.
    "binary_id(vc-qemu::vm)",
    "binary_id(vc-qemu::vm_life)",
    // The agent's obligations by the kernel's vsock, and lives of containers.
    "binary_id(vc-container::vm) - test(32_and_128_layers)",
    // Growing and giving back, which only KVM does to the full.
    "binary_id(vc-container::vm_size)",
    // Each kind of device, and those of the host.
    "binary_id(vc-container::vm_devices)",
    "binary_id(vc-container::vm_vfio)",
    // The processes that an owner leaves have other helpers here: no daemon for vsock.
    "binary_id(vc-container::vm_recover)",
    "binary_id(vc-container::vm_faults) - test(every_call_about_a_container)",
    // `vc` itself: KVM chosen and refused, root file systems and volumes from what the host's kernel has, and machines
    // that die. Not one that is emulated within what is emulated, which takes minutes.
    "binary_id(vc-cli::vm) & test(/^(kvm|host_disks|rootfs)::/) - test(a_container_of_tcg)",
    "binary_id(vc-cli::vm) & test(/^volumes::(every_kind|a_layer_that_was_tampered_with)/)",
    "binary_id(vc-cli::vm) & test(/^death::the_death_of/)",
    "binary_id(vc-cli::vm) & test(=oci::a_whole_life_as_a_monitor_sees_it)",
    // Mounts and loop devices, of a kernel without statmount and listmount.
    "package(vc-mountinfo) & binary(live)",
];

/// The filterset of what a nested host runs by itself.
pub(super) fn nested() -> String {
    let any = NESTED.iter().map(|part| format!("({part})")).collect::<Vec<_>>().join(" | ");
    format!("({ALL}) & ({any})")
}
