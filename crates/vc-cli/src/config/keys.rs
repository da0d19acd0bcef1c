//! The keys there are: their names are Kata's where Kata has them, their defaults are here.

use toml::Value;

/// A key of the configuration.
#[derive(Debug)]
pub(crate) struct Key {
    /// Section and name, with dots.
    pub(crate) name: &'static str,
    /// The environment variable that sets it.
    pub(crate) variable: &'static str,
    /// Its default in TOML, which tells its type as well.
    default: &'static str,
    /// The annotation that may set it, if the allow-list has its name. What names a program of the host has none.
    pub(crate) annotation: Option<&'static str>,
    /// What it is for.
    pub(crate) about: &'static str,
}

impl Key {
    /// Its default.
    pub(crate) fn default(&self) -> Value {
        let table: toml::Table = format!("value = {}", self.default).parse().expect("a default is TOML");
        table["value"].clone()
    }

    /// Its section and its name in there.
    pub(crate) fn parts(&self) -> (&'static str, &'static str) {
        self.name.rsplit_once('.').expect("a name has a section")
    }
}

/// Finds a key by its name.
pub(crate) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// By sections, in the order in which they are printed.
pub(crate) const KEYS: [Key; 21] = [
    Key {
        name: "hypervisor.qemu.path",
        variable: "VC_QEMU",
        default: r#""qemu-system-x86_64""#,
        annotation: None,
        about: "The QEMU program",
    },
    Key {
        name: "hypervisor.qemu.machine_type",
        variable: "VC_MACHINE_TYPE",
        default: r#""q35""#,
        annotation: Some("io.katacontainers.config.hypervisor.machine_type"),
        about: "The machine that QEMU emulates; devices are plugged into PCI Express, which only q35 has",
    },
    Key {
        name: "hypervisor.qemu.accelerator",
        variable: "VC_ACCEL",
        default: r#""auto""#,
        annotation: Some("io.katacontainers.config.hypervisor.accelerator"),
        about: "What runs the guest's instructions: kvm, tcg, or auto for KVM where it works",
    },
    Key {
        name: "hypervisor.qemu.guest",
        variable: "VC_GUEST",
        default: r#""""#,
        annotation: None,
        about: "Directory of the guest image, vmlinux and initrd; if empty, it is looked for",
    },
    Key {
        name: "hypervisor.qemu.kernel",
        variable: "VC_KERNEL",
        default: r#""""#,
        annotation: Some("io.katacontainers.config.hypervisor.kernel"),
        about: "Kernel of the guest; if empty, the guest image's",
    },
    Key {
        name: "hypervisor.qemu.initrd",
        variable: "VC_INITRD",
        default: r#""""#,
        annotation: Some("io.katacontainers.config.hypervisor.initrd"),
        about: "Initial RAM disk of the guest; if empty, the guest image's",
    },
    Key {
        name: "hypervisor.qemu.kernel_params",
        variable: "VC_KERNEL_PARAMS",
        default: r#""""#,
        annotation: Some("io.katacontainers.config.hypervisor.kernel_params"),
        about: "Put behind the kernel's command line",
    },
    Key {
        name: "hypervisor.qemu.default_vcpus",
        variable: "VC_DEFAULT_VCPUS",
        default: "1",
        annotation: Some("io.katacontainers.config.hypervisor.default_vcpus"),
        about: "vCPUs of a machine, besides those that the limits of its first container ask for; -1 for as many as the host has",
    },
    Key {
        name: "hypervisor.qemu.default_maxvcpus",
        variable: "VC_DEFAULT_MAXVCPUS",
        default: "0",
        annotation: Some("io.katacontainers.config.hypervisor.default_maxvcpus"),
        about: "vCPUs that it may grow to for its other containers; 0 for no growth, -1 for as many as the host has",
    },
    Key {
        name: "hypervisor.qemu.default_memory",
        variable: "VC_DEFAULT_MEMORY",
        default: "256",
        annotation: Some("io.katacontainers.config.hypervisor.default_memory"),
        about: "Memory of a machine in MiB, besides what the limits of its first container ask for",
    },
    Key {
        name: "hypervisor.qemu.default_maxmemory",
        variable: "VC_DEFAULT_MAXMEMORY",
        default: "0",
        annotation: Some("io.katacontainers.config.hypervisor.default_maxmemory"),
        about: "Memory in MiB that it may grow to for its other containers; 0 for no growth",
    },
    Key {
        name: "hypervisor.qemu.pcie_root_port",
        variable: "VC_PCIE_ROOT_PORT",
        default: "8",
        annotation: Some("io.katacontainers.config.hypervisor.pcie_root_port"),
        about: "How many devices that need a port of PCI Express can be plugged at one time",
    },
    Key {
        name: "hypervisor.qemu.hot_plug_vfio",
        variable: "VC_HOT_PLUG_VFIO",
        default: r#""no-port""#,
        annotation: Some("io.katacontainers.config.hypervisor.hot_plug_vfio"),
        about: "Where devices of the host go that a container asks for by /dev/vfio: root-port, or no-port to refuse them",
    },
    Key {
        name: "hypervisor.qemu.shared_fs",
        variable: "VC_SHARED_FS",
        default: r#""virtio-fs""#,
        annotation: Some("io.katacontainers.config.hypervisor.shared_fs"),
        about: "How directories of the host reach a machine: virtio-fs, virtio-fs-nydus for roots of nydus too, or none to have files copied",
    },
    Key {
        name: "hypervisor.qemu.virtio_fs_daemon",
        variable: "VC_VIRTIO_FS_DAEMON",
        default: r#""""#,
        annotation: None,
        about: "The program that serves these directories, virtiofsd or nydusd; if empty, it is looked for",
    },
    Key {
        name: "hypervisor.qemu.vsock_daemon",
        variable: "VC_VHOST_DEVICE_VSOCK",
        default: r#""vhost-device-vsock""#,
        annotation: None,
        about: "The program that serves vsock on a host without /dev/vhost-vsock",
    },
    Key {
        name: "hypervisor.qemu.enable_annotations",
        variable: "VC_ENABLE_ANNOTATIONS",
        default: "[]",
        annotation: None,
        about: "Names of keys that annotations may set, such as \"default_memory\"",
    },
    Key {
        name: "agent.kata.dial_timeout",
        variable: "VC_DIAL_TIMEOUT",
        default: "120",
        annotation: None,
        about: "Seconds from the start of a machine until its agent answers",
    },
    Key {
        name: "runtime.create_container_timeout",
        variable: "VC_CREATE_CONTAINER_TIMEOUT",
        default: "60",
        annotation: Some("io.katacontainers.config.runtime.create_container_timeout"),
        about: "Seconds that the creation of a container may take in a machine that is there",
    },
    Key {
        name: "runtime.vfio_mode",
        variable: "VC_VFIO_MODE",
        default: r#""guest-kernel""#,
        annotation: Some("io.katacontainers.config.runtime.vfio_mode"),
        about: "Who drives such devices in the guest: guest-kernel, or vfio for the container itself",
    },
    Key {
        name: "runtime.enable_debug",
        variable: "VC_ENABLE_DEBUG",
        default: "false",
        annotation: None,
        about: "Log more: owners to the file owner.log, commands to standard error",
    },
];
