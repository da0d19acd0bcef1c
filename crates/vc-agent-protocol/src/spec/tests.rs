//! Round trips, and what does not survive them.

use super::{ConvertError, fields_lost, to_wire};
use crate::oci;
use oci_spec::runtime::{LinuxResources, Process, Spec};
use proptest::prelude::*;
use protobuf::Message;
use serde_json::{Value, json};

/// Every field that the wire has a place for.
fn everything_carried() -> Value {
    let hook = json!({"path": "/bin/hook", "args": ["hook", "a"], "env": ["K=V"], "timeout": 3});
    let throttle = json!([{"major": 8, "minor": 0, "rate": 1_000_000}]);
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "terminal": true,
            "consoleSize": {"height": 24, "width": 80},
            "user": {"uid": 1000, "gid": 100, "additionalGids": [5, 6], "username": "me"},
            "args": ["sh", "-c", "true"],
            "env": ["PATH=/bin", "EMPTY="],
            "cwd": "/work",
            "capabilities": {
                "bounding": ["CAP_CHOWN", "CAP_KILL"], "effective": ["CAP_KILL"], "inheritable": [],
                "permitted": ["CAP_KILL"], "ambient": []
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": u64::MAX, "soft": 1024}],
            "noNewPrivileges": true,
            "apparmorProfile": "profile",
            "oomScoreAdj": -5,
            "selinuxLabel": "label"
        },
        "root": {"path": "/run/rootfs", "readonly": true},
        "hostname": "box",
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]}],
        "hooks": {
            "prestart": [hook], "poststart": [hook], "poststop": [hook],
            "createRuntime": [hook], "createContainer": [hook], "startContainer": [hook]
        },
        "annotations": {"key": "value"},
        "linux": {
            "uidMappings": [{"hostID": 1000, "containerID": 0, "size": 1}],
            "gidMappings": [{"hostID": 1000, "containerID": 0, "size": 1}],
            "sysctl": {"net.ipv4.ip_forward": "1"},
            "cgroupsPath": "/vc/box",
            "namespaces": [{"type": "mount"}, {"type": "network", "path": "/run/netns/a"}, {"type": "pid"},
                {"type": "uts"}, {"type": "ipc"}, {"type": "cgroup"}, {"type": "user"}, {"type": "time"}],
            "devices": [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 438,
                "uid": 1, "gid": 2}],
            "rootfsPropagation": "slave",
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"],
            "mountLabel": "label",
            "intelRdt": {"l3CacheSchema": "L3:0=f"},
            "seccomp": {
                "defaultAction": "SCMP_ACT_ERRNO",
                "architectures": ["SCMP_ARCH_X86_64"],
                "flags": ["SECCOMP_FILTER_FLAG_LOG"],
                "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW", "errnoRet": 1,
                    "args": [{"index": 1, "value": 2, "valueTwo": 3, "op": "SCMP_CMP_MASKED_EQ"}]}]
            },
            "resources": {
                "devices": [{"allow": false, "access": "rwm"},
                    {"allow": true, "type": "c", "major": 10, "minor": 0, "access": "r"}],
                "memory": {"limit": 1 << 30, "reservation": -1, "swap": 5, "kernel": 6, "kernelTCP": 7,
                    "swappiness": 8, "disableOOMKiller": true},
                "cpu": {"shares": 1024, "quota": -1, "period": 100_000, "realtimeRuntime": 1,
                    "realtimePeriod": 2, "cpus": "0-1", "mems": "0"},
                "pids": {"limit": 0},
                "blockIO": {"weight": 10, "leafWeight": 20,
                    "weightDevice": [{"major": 8, "minor": 0, "weight": 30, "leafWeight": 40}],
                    "throttleReadBpsDevice": throttle, "throttleWriteBpsDevice": throttle,
                    "throttleReadIOPSDevice": throttle, "throttleWriteIOPSDevice": throttle},
                "hugepageLimits": [{"pageSize": "2MB", "limit": 4096}],
                "network": {"classID": 7, "priorities": [{"name": "eth0", "priority": 3}]}
            }
        }
    })
}

#[test]
fn what_the_wire_carries_arrives_unchanged() {
    let spec: Spec = serde_json::from_value(everything_carried()).unwrap();
    let bytes = oci::Spec::try_from(&spec).unwrap().write_to_bytes().unwrap();
    let arrived = Spec::try_from(&oci::Spec::parse_from_bytes(&bytes).unwrap()).unwrap();
    assert_eq!(arrived, spec);
    assert_eq!(fields_lost(&spec).unwrap(), [""; 0]);
}

#[test]
fn what_the_wire_cannot_carry_is_named() {
    let mut spec = everything_carried();
    let fields = [
        ("/domainname", json!("example.org")),
        ("/process/user/umask", json!(18)),
        ("/process/ioPriority", json!({"class": "IOPRIO_CLASS_IDLE", "priority": 1})),
        ("/mounts/0/uidMappings", json!([{"hostID": 1, "containerID": 0, "size": 1}])),
        ("/linux/resources/unified", json!({"memory.high": "1"})),
        ("/linux/seccomp/defaultErrnoRet", json!(38)),
        ("/linux/timeOffsets", json!({"boottime": {"secs": 5}})),
    ];
    for (pointer, value) in &fields {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        spec.pointer_mut(parent).unwrap()[key] = value.clone();
    }
    let spec: Spec = serde_json::from_value(spec).unwrap();
    let lost = fields_lost(&spec).unwrap();
    for field in
        ["domainname", "process.user.umask", "mounts[0].uidMappings", "linux.seccomp.defaultErrnoRet"]
    {
        assert!(lost.iter().any(|lost| lost == field), "{field} is missing in {lost:?}");
    }
    let of = |prefix: &str| lost.iter().filter(|lost| lost.starts_with(prefix)).count();
    assert_eq!(of("process.ioPriority"), 2);
    assert_eq!(of("linux.resources.unified"), 1);
    assert_eq!(of("linux.timeOffsets"), 1);
    assert_eq!(lost.len(), 8, "{lost:?}");
    assert_eq!(to_wire(&spec), Err(ConvertError::NotCarried { fields: lost }));
}

#[test]
fn umask_intel_rdt_and_unified_are_refused_by_name() {
    let process = json!({"args": ["true"], "cwd": "/", "user": {"uid": 0, "gid": 0, "umask": 0o27}});
    let process: Process = serde_json::from_value(process).unwrap();
    let fields = vec!["user.umask".to_owned()];
    assert_eq!(to_wire(&process), Err(ConvertError::NotCarried { fields }));

    let resources: LinuxResources = serde_json::from_value(json!({"unified": {"memory.high": "1"}})).unwrap();
    let fields = vec!["unified.memory.high".to_owned()];
    assert_eq!(to_wire(&resources), Err(ConvertError::NotCarried { fields }));

    let mut spec = everything_carried();
    let good: Spec = serde_json::from_value(spec.clone()).unwrap();
    assert!(to_wire(&good).is_ok());
    spec["linux"]["intelRdt"]["closID"] = json!("guaranteed");
    spec["linux"]["intelRdt"]["memBwSchema"] = json!("MB:0=20");
    let spec: Spec = serde_json::from_value(spec).unwrap();
    let fields = vec!["linux.intelRdt.closID".to_owned(), "linux.intelRdt.memBwSchema".to_owned()];
    assert_eq!(to_wire(&spec), Err(ConvertError::NotCarried { fields }));
}

#[test]
fn what_one_side_cannot_express_is_an_error_that_names_the_field() {
    let mut process = everything_carried()["process"].clone();
    process["consoleSize"]["width"] = json!(u64::from(u32::MAX) + 1);
    let process: Process = serde_json::from_value(process).unwrap();
    let error = ConvertError::Range { field: "process.consoleSize.width", value: 1 << 32 };
    assert_eq!(oci::Process::try_from(&process), Err(error));

    let namespace = oci::LinuxNamespace { type_: "moon".into(), ..Default::default() };
    let linux = oci::Linux { namespaces: vec![namespace], ..Default::default() };
    let wire = oci::Spec { linux: Some(linux).into(), ..Default::default() };
    let error = ConvertError::Unknown { field: "linux.namespaces.type", value: "moon".into() };
    assert_eq!(Spec::try_from(&wire), Err(error));
}

prop_compose! {
    fn wire_process()(
        texts in prop::collection::vec("\\PC*", 0..6),
        cwd in "(/[a-z]{0,8}){0,3}",
        ids in prop::collection::vec(any::<u32>(), 2..6),
        flags in any::<(bool, bool)>(),
        oom_score_adj in any::<i32>(),
        capabilities in prop::option::of(prop::sample::subsequence(vec!["CAP_BPF", "CAP_CHOWN", "CAP_KILL"], 0..3)),
    ) -> oci::Process {
        let names = |set: Vec<&str>| set.into_iter().map(str::to_owned).collect::<Vec<_>>();
        oci::Process {
            terminal: flags.0,
            no_new_privileges: flags.1,
            args: texts.clone(),
            env: texts,
            cwd,
            user: Some(oci::User {
                uid: ids[0], gid: ids[1], additional_gids: ids[2..].to_vec(), ..Default::default()
            }).into(),
            oom_score_adj: oom_score_adj.into(),
            capabilities: capabilities
                .map(|set| oci::LinuxCapabilities { effective: names(set), ..Default::default() })
                .into(),
            ..Default::default()
        }
    }
}

proptest! {
    #[test]
    fn a_process_from_the_wire_goes_back_unchanged(wire in wire_process()) {
        prop_assert_eq!(oci::Process::try_from(&Process::try_from(&wire).unwrap()).unwrap(), wire);
    }

    #[test]
    fn limits_from_the_wire_go_back_unchanged(
        limits in any::<[i64; 5]>(), shares in any::<u64>(), weight in any::<u16>(), pages in 0..=i64::MAX,
    ) {
        let wire = oci::LinuxResources {
            memory: Some(oci::LinuxMemory { limit: limits[0], swap: limits[1], ..Default::default() }).into(),
            cpu: Some(oci::LinuxCPU { quota: limits[2], shares, ..Default::default() }).into(),
            pids: Some(oci::LinuxPids { limit: limits[3], ..Default::default() }).into(),
            devices: vec![oci::LinuxDeviceCgroup {
                major: limits[4].max(-1), minor: limits[0].max(-1), ..Default::default()
            }],
            block_io: Some(oci::LinuxBlockIO { weight: weight.into(), ..Default::default() }).into(),
            hugepage_limits: vec![oci::LinuxHugepageLimit {
                page_size: "2MB".into(), limit: pages.unsigned_abs(), ..Default::default()
            }],
            ..Default::default()
        };
        prop_assert_eq!(oci::LinuxResources::try_from(&LinuxResources::try_from(&wire).unwrap()).unwrap(), wire);
    }

    #[test]
    fn no_bytes_make_the_conversion_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        if let Ok(wire) = oci::Spec::parse_from_bytes(&bytes) {
            let _ = Spec::try_from(&wire);
        }
    }
}
