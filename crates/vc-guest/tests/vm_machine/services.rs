//! Calls that are about the guest and not about a container.

use std::num::NonZeroU8;

use vc_agent_protocol::{agent, oci};

use super::guest::{Guest, Plan, code, container, deadline, storage};
use super::images;

async fn metric(guest: &Guest, series: &str) -> f64 {
    let page = guest.agent.get_metrics(deadline(), &agent::GetMetricsRequest::new()).await.unwrap().metrics;
    let line = page.lines().find_map(|line| line.strip_prefix(series));
    line.unwrap_or_else(|| panic!("no {series} in\n{page}")).trim().parse().unwrap()
}

#[tokio::test]
async fn processors_memory_and_swap_are_put_to_use() {
    let Some(mut plan) = Plan::new() else { return };
    plan.vcpus = NonZeroU8::new(2).unwrap();
    // One processor waits to be switched on, as one that was just plugged.
    plan.kernel_params.push("maxcpus=1".into());
    let swap = images::filesystem(plan.directory(), "swap", "swap", 8);
    plan.disk(&swap, 0x11, true);
    let guest = plan.boot().await;
    let online = |nb_cpus| agent::OnlineCPUMemRequest { wait: true, nb_cpus, ..Default::default() };
    guest.agent.online_cpu_mem(deadline(), &online(1)).await.unwrap();
    assert!(metric(&guest, "kata_guest_cpu_time{cpu=\"1\",item=\"idle\"}").await >= 0.0);
    let late = guest.agent.online_cpu_mem(deadline(), &online(1)).await;
    assert_eq!(code(late), ttrpc::Code::DEADLINE_EXCEEDED);
    let swap = agent::AddSwapRequest { pci_path: vec![0x11], ..Default::default() };
    guest.agent.add_swap(deadline(), &swap).await.unwrap();
    assert_eq!(metric(&guest, "kata_guest_meminfo{item=\"swaptotal\"}").await, 8188.0);
    let details = agent::GuestDetailsRequest { mem_block_size: true, ..Default::default() };
    let details = guest.agent.get_guest_details(deadline(), &details).await.unwrap();
    assert_eq!(details.mem_block_size_bytes, 128 << 20);
    assert!(details.agent_details.init_daemon);
    guest.end().await;
}

#[tokio::test]
async fn clock_entropy_and_a_volumes_size() {
    let Some(mut plan) = Plan::new() else { return };
    let image = images::filesystem(plan.directory(), "ext4", "small", 8);
    // The disk grows, and its file system is to follow.
    std::fs::File::options().write(true).open(&image).unwrap().set_len(24 << 20).unwrap();
    plan.disk(&image, 0x11, true);
    let guest = plan.boot().await;
    let date = agent::SetGuestDateTimeRequest { sec: 2_000_000_000, usec: 5, ..Default::default() };
    guest.agent.set_guest_date_time(deadline(), &date).await.unwrap();
    let output = guest.shell("clock", vec![], &[], "date +%s").await;
    assert!(output.trim().parse::<u64>().unwrap() - 2_000_000_000 < 120, "{output}");
    let reseed = agent::ReseedRandomDevRequest { data: vec![7; 512], ..Default::default() };
    guest.agent.reseed_random_dev(deadline(), &reseed).await.unwrap();

    // By its name, as on a machine whose disks have no address. No such machine can be launched, since it has no
    // place for the agent's vsock device; but this one has a single disk, so the name is known.
    let volume = storage("mmioblk", "/dev/vda", "ext4", &[], "/run/volume");
    guest.start("volume", vec![volume], &["/run/volume"], "exec sleep 600").await.unwrap();
    let stats = agent::VolumeStatsRequest { volume_guest_path: "/run/volume".into(), ..Default::default() };
    let before = guest.agent.get_volume_stats(deadline(), &stats).await.unwrap().usage[0].total;
    let resize = agent::ResizeVolumeRequest {
        volume_guest_path: "/run/volume".into(),
        size: 24 << 20,
        ..Default::default()
    };
    guest.agent.resize_volume(deadline(), &resize).await.unwrap();
    let after = guest.agent.get_volume_stats(deadline(), &stats).await.unwrap().usage[0].total;
    assert!(before < 8 << 20 && after > 16 << 20, "{before} {after}");
    guest.end().await;
}

#[tokio::test]
async fn a_container_without_memory_is_told_and_its_last_words_are_kept() {
    let Some(plan) = Plan::new() else { return };
    let guest = plan.boot().await;
    // Its own first process takes more than there is.
    let script = "echo last words > /termination-log; tail /dev/zero; exit 3";
    let mut request = container("hog", vec![], &[], script);
    let spec = request.oci.as_mut().unwrap();
    let annotation = "io.kubernetes.container.terminationMessagePath";
    spec.annotations.insert(annotation.into(), "/termination-log".into());
    let memory = oci::LinuxMemory { limit: 16 << 20, ..Default::default() };
    let resources = oci::LinuxResources { memory: Some(memory).into(), ..Default::default() };
    spec.linux.as_mut().unwrap().resources = Some(resources).into();
    guest.agent.create_container(deadline(), &request).await.unwrap();
    let start = agent::StartContainerRequest { container_id: "hog".into(), ..Default::default() };
    guest.agent.start_container(deadline(), &start).await.unwrap();
    let event = guest.agent.get_oom_event(deadline(), &agent::GetOOMEventRequest::new()).await.unwrap();
    assert_eq!(event.container_id, "hog");
    let log = agent::GetDiagnosticDataRequest {
        log_type: "termination_log".into(),
        container_id: "hog".into(),
        ..Default::default()
    };
    assert_eq!(guest.agent.get_diagnostic_data(deadline(), &log).await.unwrap().data, "last words\n");
    guest.end().await;
}

#[tokio::test]
async fn hooks_of_the_guest_image_run_for_every_container() {
    let Some(plan) = Plan::new() else { return };
    let guest = plan.boot().await;
    let busybox = "/run/layers/busybox/bin/busybox";
    // A hook is told the container's state, and its own name and kind as arguments.
    let script = |what: &str| {
        format!("#!{busybox} sh\n{busybox} cat > /run/hooked-{what}; echo \"$0 $1\" >> /run/hooked-{what}\n")
    };
    for (kind, mode) in [("prestart", 0o100_755), ("poststop", 0o100_755), ("poststart", 0o100_644)] {
        let data = script(kind).into_bytes();
        let copy = agent::CopyFileRequest {
            path: format!("/run/hooks/{kind}/10-mark"),
            file_size: i64::try_from(data.len()).unwrap(),
            file_mode: mode,
            dir_mode: 0o755,
            data,
            ..Default::default()
        };
        guest.agent.copy_file(deadline(), &copy).await.unwrap();
    }
    let sandbox = agent::CreateSandboxRequest {
        storages: vec![storage("scsi", "0:0", "erofs", &["ro"], "/run/layers/busybox")],
        guest_hook_path: "/run/hooks".into(),
        ..Default::default()
    };
    guest.agent.create_sandbox(deadline(), &sandbox).await.unwrap();
    guest.shell("first", vec![], &[], "true").await;
    let told = guest.shell("second", vec![], &["/run"], "cat /run/hooked-poststop; ls /run").await;
    assert!(told.contains("\"id\":\"first\"") && told.contains("\"status\":\"stopped\""), "{told}");
    assert!(told.contains("hooked-prestart") && told.contains("/10-mark poststop"), "{told}");
    assert!(!told.contains("hooked-poststart"), "what is no program is no hook: {told}");
    guest.end().await;
}
