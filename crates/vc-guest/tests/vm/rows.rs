//! The rows of `docs/OCI.md`, as what a specification says and what its container must see then.

use crate::guest::{merge, rootfs};
use serde_json::{Value, json};

/// One row of the table.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// The field, as the table names it.
    pub(crate) field: &'static str,
    pub(crate) check: Check,
}

/// How a row is checked.
#[derive(Clone, Debug)]
pub(crate) enum Check {
    /// With `patch` in the specification the shell command `script` writes `want`.
    Seen { patch: Value, script: String, want: String },
    /// With `patch` in the specification the container is refused, and the message has this text.
    Refused { patch: Value, why: &'static str },
    /// The protocol has no place for the field at this JSON pointer, whose value would be `value`.
    NotCarried { pointer: &'static str, value: Value },
    /// A test of its own, by its name.
    Elsewhere(&'static str),
}

/// The id of the container of a row.
pub(crate) const ID: &str = "row";

fn seen(field: &'static str, patch: Value, script: &str, want: &str) -> Row {
    let check = Check::Seen { patch, script: script.to_owned(), want: format!("{want}\n") };
    Row { field, check }
}

fn refused(field: &'static str, patch: Value, why: &'static str) -> Row {
    Row { field, check: Check::Refused { patch, why } }
}

fn not_carried(field: &'static str, pointer: &'static str, value: Value) -> Row {
    Row { field, check: Check::NotCarried { pointer, value } }
}

fn elsewhere(field: &'static str, test: &'static str) -> Row {
    Row { field, check: Check::Elsewhere(test) }
}

/// The specification as a whole, its root and its process.
pub(crate) fn process() -> Vec<Row> {
    let process = |process: Value| json!({"process": process});
    let capabilities = |sets: Value| json!({"process": {"capabilities": sets}});
    let set = |name: &str| format!("grep {name} /proc/self/status | cut -f2");
    // With all of a user's sets alike nothing changes at execve(2) (capabilities(7)).
    let bind = json!(["CAP_NET_BIND_SERVICE"]);
    let user = json!({"process": {
        "user": {"uid": 1000, "gid": 100},
        "capabilities": {"bounding": bind, "effective": bind, "permitted": bind, "inheritable": bind, "ambient": bind},
    }});
    vec![
        refused("ociVersion", json!({"ociVersion": "2.0.0"}), "ociVersion"),
        seen("root.path", json!({}), "test -x /bin/busybox && echo yes", "yes"),
        seen(
            "root.readonly",
            json!({"root": {"readonly": true}}),
            "touch /x 2>/dev/null && echo writable || echo read-only",
            "read-only",
        ),
        seen("hostname", json!({"hostname": "box"}), "hostname", "box"),
        not_carried("domainname", "/domainname", json!("example.org")),
        elsewhere("process.terminal", "a_terminal_has_the_size_that_it_is_given"),
        elsewhere("process.consoleSize", "a_terminal_has_the_size_that_it_is_given"),
        seen("process.cwd", process(json!({"cwd": "/tmp"})), "pwd", "/tmp"),
        seen(
            "process.env",
            process(json!({"env": ["PATH=/bin", "GREETING=a b"]})),
            "echo \"$GREETING\"",
            "a b",
        ),
        elsewhere("process.args", "a_process_gets_its_arguments_as_they_are"),
        seen("process.user.uid", process(json!({"user": {"uid": 1000}})), "id -u", "1000"),
        seen("process.user.gid", process(json!({"user": {"gid": 100}})), "id -g", "100"),
        seen(
            "process.user.additionalGids",
            process(json!({"user": {"additionalGids": [5, 6]}})),
            "grep Groups /proc/self/status | cut -f2 | tr -d '\\n'; echo",
            "5 6 ",
        ),
        not_carried("process.user.umask", "/process/user/umask", json!(18)),
        refused(
            "process.user.username",
            process(json!({"user": {"username": "me"}})),
            "process.user.username",
        ),
        seen(
            "process.capabilities.bounding",
            capabilities(json!({"bounding": ["CAP_CHOWN"], "effective": [], "permitted": []})),
            &set("CapBnd"),
            "0000000000000001",
        ),
        seen("process.capabilities.effective", user.clone(), &set("CapEff"), "0000000000000400"),
        seen("process.capabilities.permitted", user.clone(), &set("CapPrm"), "0000000000000400"),
        seen("process.capabilities.inheritable", user.clone(), &set("CapInh"), "0000000000000400"),
        seen("process.capabilities.ambient", user, &set("CapAmb"), "0000000000000400"),
        seen(
            "process.rlimits",
            process(json!({"rlimits": [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]})),
            "echo $(ulimit -Sn) $(ulimit -Hn)",
            "100 200",
        ),
        seen(
            "process.noNewPrivileges",
            process(json!({"noNewPrivileges": true})),
            "grep NoNewPrivs /proc/self/status | cut -f2",
            "1",
        ),
        seen(
            "process.oomScoreAdj",
            process(json!({"oomScoreAdj": 123})),
            "cat /proc/self/oom_score_adj",
            "123",
        ),
        refused(
            "process.apparmorProfile",
            process(json!({"apparmorProfile": "x"})),
            "process.apparmorProfile",
        ),
        refused("process.selinuxLabel", process(json!({"selinuxLabel": "x"})), "process.selinuxLabel"),
        not_carried(
            "process.ioPriority",
            "/process/ioPriority",
            json!({"class": "IOPRIO_CLASS_IDLE", "priority": 1}),
        ),
        not_carried("process.scheduler", "/process/scheduler", json!({"policy": "SCHED_BATCH", "nice": 5})),
        not_carried("process.execCPUAffinity", "/process/execCPUAffinity", json!({"initial": "0"})),
        elsewhere("annotations", "hooks_are_told_the_annotations"),
        refused("solaris", json!({"solaris": {}}), "solaris"),
        refused("windows", json!({"windows": {"layerFolders": []}}), "windows"),
        not_carried("vm", "/vm", json!({"kernel": {"path": "/vmlinux"}})),
    ]
}

/// Mounts and hooks.
pub(crate) fn mounts_and_hooks() -> Vec<Row> {
    let tmpfs = |options: &[&str]| json!({"mounts": [{"destination": "/mnt", "type": "tmpfs", "source": "memory", "options": options}]});
    let bind = |options: &[&str]| {
        json!({"mounts": [
            {"destination": "/mnt", "type": "bind", "source": "/run/layers/busybox/etc", "options": options}
        ]})
    };
    let field = |number: u8| format!("grep ' /mnt ' /proc/mounts | cut -d' ' -f{number}");
    let touch = |root: &str| json!([{"path": format!("{root}/bin/touch"), "args": ["touch", format!("{root}/hooked")]}]);
    let hook = |name: &str, root: &str| json!({"hooks": {name: touch(root)}});
    let hooked = "ls /hooked";
    let started = "until [ -e /hooked ]; do :; done; ls /hooked";
    let outside = rootfs(ID);
    vec![
        seen("mounts.destination", tmpfs(&[]), &field(2), "/mnt"),
        seen("mounts.type", tmpfs(&[]), &field(3), "tmpfs"),
        seen("mounts.source", bind(&["bind"]), "cat /mnt/not-executable", "data"),
        seen(
            "mounts.options",
            tmpfs(&["nosuid", "noexec", "size=64k"]),
            "grep ' /mnt ' /proc/mounts | cut -d' ' -f4 | tr , '\\n' | grep -E 'nosuid|noexec|size=64k' | sort | tr '\\n' ' '; echo",
            "noexec nosuid size=64k ",
        ),
        seen(
            "mounts.options: ro of a bind mount",
            bind(&["bind", "ro"]),
            "touch /mnt/x 2>/dev/null && echo writable || echo read-only",
            "read-only",
        ),
        seen(
            "mounts.options: tmpcopyup",
            json!({"mounts": [{"destination": "/etc", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "nosuid"]}]}),
            "cut -d: -f1 /etc/passwd; grep -c ' /etc tmpfs .*nosuid' /proc/mounts; touch /etc/new && ls /etc | grep -c new",
            "root\n1\n1",
        ),
        seen(
            "mounts.options: private and slave",
            tmpfs(&["rslave"]),
            "grep ' /mnt ' /proc/self/mountinfo | grep -c 'shared:'",
            "0",
        ),
        refused("mounts.options: shared", tmpfs(&["rshared"]), "a shared mount"),
        refused("mounts.options: unbindable", tmpfs(&["unbindable"]), "an unbindable mount"),
        refused("mounts.options: idmap", bind(&["bind", "idmap"]), "id-mapped"),
        not_carried(
            "mounts.uidMappings",
            "/mounts/0/uidMappings",
            json!([{"hostID": 1, "containerID": 0, "size": 1}]),
        ),
        not_carried(
            "mounts.gidMappings",
            "/mounts/0/gidMappings",
            json!([{"hostID": 1, "containerID": 0, "size": 1}]),
        ),
        seen("hooks.prestart", hook("prestart", &outside), hooked, "/hooked"),
        seen("hooks.createRuntime", hook("createRuntime", &outside), hooked, "/hooked"),
        seen("hooks.createContainer", hook("createContainer", &outside), hooked, "/hooked"),
        // It runs in the container once that has been started, so another process may come before it.
        seen("hooks.startContainer", hook("startContainer", ""), started, "/hooked"),
        // It runs as soon as the process may, so that may come first.
        seen("hooks.poststart", hook("poststart", &outside), started, "/hooked"),
        elsewhere("hooks.poststop", "late_hooks_run_after_the_start_and_the_end"),
    ]
}

/// The Linux part, without resources and seccomp.
pub(crate) fn linux() -> Vec<Row> {
    let linux = |linux: Value| json!({"linux": linux});
    let with =
        |kind: &str| linux(json!({"namespaces": [{"type": "mount"}, {"type": "cgroup"}, {"type": kind}]}));
    // The numbers that the kernel gives the first namespaces (`include/linux/proc_ns.h`).
    let own = |kind: &str, first: u32| {
        format!("test $(readlink /proc/self/ns/{kind}) = '{kind}:[{first}]' && echo shared || echo own")
    };
    let device = |device: Value| linux(json!({"devices": [device]}));
    // A network of its own as well: only whose it is may mount its /sys.
    let users = linux(json!({
        "namespaces": [{"type": "mount"}, {"type": "cgroup"}, {"type": "network"}, {"type": "user"}],
        "uidMappings": [
            {"hostID": 1000, "containerID": 0, "size": 10}, {"hostID": 5000, "containerID": 10, "size": 1},
        ],
        "gidMappings": [{"hostID": 2000, "containerID": 0, "size": 20}],
    }));
    // More than who is in there could raise it to.
    let mut limited =
        json!({"process": {"rlimits": [{"type": "RLIMIT_NOFILE", "soft": 300_000, "hard": 300_000}]}});
    merge(&mut limited, &users);
    vec![
        seen("linux.namespaces: mount", json!({}), "grep -c ' / / ' /proc/self/mountinfo", "1"),
        seen("linux.namespaces: pid", json!({}), "echo $$", "1"),
        elsewhere("linux.namespaces: pid, shared", "containers_may_share_their_pids"),
        seen("linux.namespaces: ipc", with("ipc"), &own("ipc", 0xEFFF_FFFF), "own"),
        seen("linux.namespaces: uts", with("uts"), &own("uts", 0xEFFF_FFFE), "own"),
        seen("linux.namespaces: cgroup", json!({}), "cat /proc/self/cgroup", "0::/"),
        seen(
            "linux.namespaces: network",
            with("network"),
            "ip link show lo | grep -q UP && echo shared || echo own",
            "own",
        ),
        seen("linux.namespaces: time", with("time"), &own("time", 0xEFFF_FFFA), "own"),
        seen("linux.namespaces: user", users.clone(), "id -u; cat /etc/not-executable", "0\ndata"),
        seen(
            "linux.namespaces.path",
            linux(json!({"namespaces": [{"type": "network", "path": "/proc/1/ns/net"}]})),
            "ip link show lo | grep -q UP && echo shared || echo own",
            "shared",
        ),
        seen(
            "linux.uidMappings",
            limited,
            "echo $(cat /proc/self/uid_map) $(ulimit -Hn)",
            "0 1000 10 10 5000 1 300000",
        ),
        seen("linux.gidMappings", users, "echo $(cat /proc/self/gid_map)", "0 2000 20"),
        not_carried("linux.timeOffsets", "/linux/timeOffsets", json!({"boottime": {"secs": 5}})),
        seen(
            "linux.devices",
            device(
                json!({"path": "/dev/x", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 7, "gid": 8}),
            ),
            "stat -c '%F %t:%T %a %u:%g' /dev/x",
            "character special file a:e5 640 7:8",
        ),
        elsewhere("linux.devices, plugged", "a_plugged_disk_has_the_guests_numbers"),
        not_carried("linux.netDevices", "/linux/netDevices", json!({"eth0": {"name": "eth1"}})),
        seen(
            "linux.cgroupsPath",
            linux(json!({"cgroupsPath": "/some/where", "namespaces": [{"type": "mount"}]})),
            "cat /proc/self/cgroup",
            "0::/some/where",
        ),
        seen(
            "linux.sysctl",
            linux(json!({
                "namespaces": [{"type": "network"}], "sysctl": {"net.ipv4.ip_default_ttl": "77"},
            })),
            "cat /proc/sys/net/ipv4/ip_default_ttl",
            "77",
        ),
        seen(
            "linux.sysctl: net.*",
            linux(json!({"sysctl": {"net.ipv4.ping_group_range": "7 8"}})),
            "cat /proc/sys/net/ipv4/ping_group_range",
            "7\t8",
        ),
        refused(
            "linux.sysctl: of the whole guest",
            linux(json!({"sysctl": {"kernel.pid_max": "77"}})),
            "kernel.pid_max",
        ),
        seen(
            "linux.rootfsPropagation",
            linux(json!({"rootfsPropagation": "rshared"})),
            "grep -c ' / / .* shared:' /proc/self/mountinfo",
            "1",
        ),
        seen(
            "linux.maskedPaths",
            linux(json!({"maskedPaths": ["/etc/passwd", "/sys/kernel", "/absent"]})),
            "cat /etc/passwd | wc -c; ls /sys/kernel | wc -l",
            "0\n0",
        ),
        seen(
            "linux.readonlyPaths",
            linux(json!({"readonlyPaths": ["/etc"]})),
            "touch /etc/x 2>/dev/null || echo read-only; touch /tmp/x && echo writable",
            "read-only\nwritable",
        ),
        refused("linux.mountLabel", linux(json!({"mountLabel": "x"})), "linux.mountLabel"),
        refused("linux.intelRdt", linux(json!({"intelRdt": {"l3CacheSchema": "x"}})), "linux.intelRdt"),
        not_carried("linux.personality", "/linux/personality", json!({"domain": "LINUX32"})),
        not_carried(
            "linux.memoryPolicy",
            "/linux/memoryPolicy",
            json!({"mode": "MPOL_BIND", "nodes": "0", "flags": []}),
        ),
    ]
}

/// Resources. `disk` has the numbers of a disk that the guest has.
pub(crate) fn resources(disk: (u64, u64)) -> Vec<Row> {
    let resources = |resources: Value| json!({"linux": {"resources": resources}});
    let file = |name: &str| format!("cat /sys/fs/cgroup/{name}");
    let memory = |memory: Value| resources(json!({"memory": memory}));
    let cpu = |cpu: Value| resources(json!({"cpu": cpu}));
    let throttle = |field: &str| {
        resources(json!({"blockIO": {field: [{"major": disk.0, "minor": disk.1, "rate": 1_000_000}]}}))
    };
    let throttled = |limits: &str| format!("{}:{} {limits}", disk.0, disk.1);
    let mega = 1 << 20;
    vec![
        seen(
            "linux.resources.memory.limit",
            memory(json!({"limit": 64 * mega})),
            &file("memory.max"),
            "67108864",
        ),
        seen(
            "linux.resources.memory.reservation",
            memory(json!({"reservation": mega})),
            &file("memory.low"),
            "1048576",
        ),
        seen(
            "linux.resources.memory.swap",
            memory(json!({"limit": 64 * mega, "swap": 64 * mega})),
            &file("memory.swap.max"),
            "0",
        ),
        refused("linux.resources.memory.kernel", memory(json!({"kernel": mega})), "memory.kernel"),
        refused("linux.resources.memory.kernelTCP", memory(json!({"kernelTCP": mega})), "memory.kernelTCP"),
        refused("linux.resources.memory.swappiness", memory(json!({"swappiness": 7})), "memory.swappiness"),
        refused(
            "linux.resources.memory.disableOOMKiller",
            memory(json!({"disableOOMKiller": true})),
            "memory.disableOOMKiller",
        ),
        not_carried(
            "linux.resources.memory.useHierarchy",
            "/linux/resources/memory/useHierarchy",
            json!(true),
        ),
        not_carried(
            "linux.resources.memory.checkBeforeUpdate",
            "/linux/resources/memory/checkBeforeUpdate",
            json!(true),
        ),
        seen("linux.resources.cpu.shares", cpu(json!({"shares": 2048})), &file("cpu.weight"), "79"),
        seen("linux.resources.cpu.quota", cpu(json!({"quota": 50_000})), &file("cpu.max"), "50000 100000"),
        seen("linux.resources.cpu.period", cpu(json!({"period": 50_000})), &file("cpu.max"), "max 50000"),
        refused(
            "linux.resources.cpu.realtimeRuntime",
            cpu(json!({"realtimeRuntime": 1})),
            "cpu.realtimeRuntime",
        ),
        refused(
            "linux.resources.cpu.realtimePeriod",
            cpu(json!({"realtimePeriod": 1})),
            "cpu.realtimePeriod",
        ),
        seen("linux.resources.cpu.cpus", cpu(json!({"cpus": "0"})), &file("cpuset.cpus"), "0"),
        seen("linux.resources.cpu.mems", cpu(json!({"mems": "0"})), &file("cpuset.mems"), "0"),
        not_carried("linux.resources.cpu.burst", "/linux/resources/cpu/burst", json!(1000)),
        not_carried("linux.resources.cpu.idle", "/linux/resources/cpu/idle", json!(1)),
        seen(
            "linux.resources.pids.limit",
            resources(json!({"pids": {"limit": 77}})),
            &file("pids.max"),
            "77",
        ),
        elsewhere("linux.resources.blockIO.weight", "a_limit_without_its_controller_is_refused"),
        elsewhere("linux.resources.blockIO.weightDevice", "a_limit_without_its_controller_is_refused"),
        refused(
            "linux.resources.blockIO.leafWeight",
            resources(json!({"blockIO": {"leafWeight": 10}})),
            "blockIO.leafWeight",
        ),
        seen(
            "linux.resources.blockIO.throttleReadBpsDevice",
            throttle("throttleReadBpsDevice"),
            &file("io.max"),
            &throttled("rbps=1000000 wbps=max riops=max wiops=max"),
        ),
        seen(
            "linux.resources.blockIO.throttleWriteBpsDevice",
            throttle("throttleWriteBpsDevice"),
            &file("io.max"),
            &throttled("rbps=max wbps=1000000 riops=max wiops=max"),
        ),
        seen(
            "linux.resources.blockIO.throttleReadIOPSDevice",
            throttle("throttleReadIOPSDevice"),
            &file("io.max"),
            &throttled("rbps=max wbps=max riops=1000000 wiops=max"),
        ),
        seen(
            "linux.resources.blockIO.throttleWriteIOPSDevice",
            throttle("throttleWriteIOPSDevice"),
            &file("io.max"),
            &throttled("rbps=max wbps=max riops=max wiops=1000000"),
        ),
        seen(
            "linux.resources.hugepageLimits",
            resources(json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4 * mega}]})),
            &file("hugetlb.2MB.max"),
            "4194304",
        ),
        seen(
            "linux.resources.devices",
            json!({
                "linux": {
                    "devices": [
                        {"path": "/dev/mem0", "type": "c", "major": 1, "minor": 8},
                        {"path": "/dev/disk", "type": "b", "major": disk.0, "minor": disk.1},
                    ],
                    "resources": {"devices": [
                        {"allow": false, "access": "rwm"},
                        {"allow": true, "type": "c", "major": 1, "minor": 8, "access": "rw"},
                    ]},
                },
            }),
            "head -c 1 /dev/mem0 >/dev/null && echo allowed; head -c 1 /dev/disk 2>/dev/null || echo denied",
            "allowed\ndenied",
        ),
        refused("linux.resources.network", resources(json!({"network": {"classID": 7}})), "network"),
        not_carried("linux.resources.rdma", "/linux/resources/rdma", json!({"mlx5_1": {"hcaHandles": 3}})),
        not_carried("linux.resources.unified", "/linux/resources/unified", json!({"memory.high": "1"})),
    ]
}

/// Seccomp filters.
pub(crate) fn seccomp() -> Vec<Row> {
    let filter = |mut filter: Value| {
        let defaults = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"]});
        for (key, value) in defaults.as_object().unwrap() {
            filter.as_object_mut().unwrap().entry(key.clone()).or_insert(value.clone());
        }
        json!({"linux": {"seccomp": filter}})
    };
    let refuse_mkdir = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]);
    let mkdir = "mkdir /tmp/x 2>&1 | sed 's/.*: //'; rmdir /tmp/x 2>/dev/null";
    vec![
        seen(
            "linux.seccomp.syscalls",
            filter(json!({"syscalls": refuse_mkdir})),
            "mkdir /tmp/x 2>&1 | sed 's/.*: //'",
            "No space left on device",
        ),
        seen(
            "linux.seccomp with noNewPrivileges",
            {
                let mut patch = filter(json!({"syscalls": refuse_mkdir}));
                patch["process"] = json!({"noNewPrivileges": true});
                patch
            },
            mkdir,
            "No space left on device",
        ),
        seen(
            "linux.seccomp.syscalls.args",
            filter(json!({"syscalls": [{
                "names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1,
                "args": [{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}],
            }]})),
            "trap 'echo usr2' USR2; kill -USR2 $$; kill -USR1 $$ 2>/dev/null || echo refused",
            "usr2\nrefused",
        ),
        seen(
            "linux.seccomp.defaultAction",
            filter(json!({
                "defaultAction": "SCMP_ACT_LOG",
                "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ALLOW"}],
            })),
            "grep Seccomp: /proc/self/status | cut -f2",
            "2",
        ),
        seen(
            "linux.seccomp.architectures",
            filter(json!({"architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"], "syscalls": refuse_mkdir})),
            mkdir,
            "No space left on device",
        ),
        seen(
            "linux.seccomp.flags",
            filter(json!({"flags": ["SECCOMP_FILTER_FLAG_LOG"], "syscalls": refuse_mkdir})),
            mkdir,
            "No space left on device",
        ),
        refused(
            "linux.seccomp: SCMP_ACT_NOTIFY",
            filter(json!({"syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]})),
            "SCMP_ACT_NOTIFY",
        ),
        not_carried("linux.seccomp.defaultErrnoRet", "/linux/seccomp/defaultErrnoRet", json!(38)),
        not_carried("linux.seccomp.listenerPath", "/linux/seccomp/listenerPath", json!("/run/x")),
        not_carried("linux.seccomp.listenerMetadata", "/linux/seccomp/listenerMetadata", json!("x")),
    ]
}

/// All rows.
pub(crate) fn all(disk: (u64, u64)) -> Vec<Row> {
    [process(), mounts_and_hooks(), linux(), resources(disk), seccomp()].concat()
}
