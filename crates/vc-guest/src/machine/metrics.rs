//! GetMetrics: the numbers of the guest and of the agent, as Prometheus reads them.
//!
//! Names and labels are those of Kata Containers' agent, so that its dashboards find them; what that agent does not count
//! has names of our own.

use crate::executor::Spent;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// A clock tick, in seconds: the kernel's USER_HZ is 100 on every architecture of today (times(2)).
const TICK: f64 = 0.01;

/// All metrics, as text in Prometheus' exposition format. `proc` is where procfs is mounted, `executor` what the
/// container executor has spent so far.
pub(crate) fn metrics(proc: &Path, executor: Spent) -> String {
    let read = |name: &str| std::fs::read_to_string(proc.join(name)).unwrap_or_default();
    let mut page = Page::default();
    page.load(&read("loadavg"));
    page.cpu_times(&read("stat"));
    page.pairs("kata_guest_meminfo", "Memory of the guest, in kB.", &read("meminfo"), ':');
    page.pairs("kata_guest_vm_stat", "Virtual memory of the guest.", &read("vmstat"), ' ');
    page.disks(&read("diskstats"));
    page.interfaces(&read("net/dev"));
    page.agent(&read("self/stat"));
    page.pairs("kata_agent_io_stat", "What the agent read and wrote.", &read("self/io"), ':');
    page.pairs("kata_agent_proc_status", "Status of the agent's process.", &read("self/status"), ':');
    page.executor(executor);
    page.0
}

/// The text so far.
#[derive(Default)]
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} gauge");
    }

    fn value(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let _ = self.0.write_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let open = if index == 0 { '{' } else { ',' };
            let _ = write!(self.0, "{open}{label}=\"{}\"", escape(text));
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{close} {value}");
    }

    fn load(&mut self, text: &str) {
        let name = "kata_guest_load";
        self.head(name, "Load of the guest over 1, 5 and 15 minutes.");
        for (item, number) in ["load1", "load5", "load15"].iter().zip(numbers(text)) {
            self.value(name, &[("item", item)], number);
        }
    }

    fn cpu_times(&mut self, stat: &str) {
        const ITEMS: [&str; 10] =
            ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice"];
        let name = "kata_guest_cpu_time";
        self.head(name, "Time of the guest's processors, in seconds.");
        for line in stat.lines().filter(|line| line.starts_with("cpu")) {
            let Some((cpu, times)) = line.split_once(' ') else { continue };
            let cpu = if cpu == "cpu" { "total" } else { &cpu[3..] };
            for (item, ticks) in ITEMS.iter().zip(numbers(times)) {
                self.value(name, &[("cpu", cpu), ("item", item)], ticks * TICK);
            }
        }
    }

    /// Lines of `key number`, with a unit or not.
    fn pairs(&mut self, name: &str, help: &str, text: &str, separator: char) {
        self.head(name, help);
        // Two lines of one name would make the whole page unreadable.
        let pairs: BTreeMap<_, _> = text
            .lines()
            .filter_map(|line| {
                let (key, value) = line.split_once(separator)?;
                Some((key.trim().to_ascii_lowercase(), value.split_whitespace().next()?.parse::<f64>().ok()?))
            })
            .collect();
        for (key, number) in pairs {
            self.value(name, &[("item", &key)], number);
        }
    }

    /// The kernel's `Documentation/admin-guide/iostats.rst`.
    fn disks(&mut self, text: &str) {
        const ITEMS: [&str; 11] = [
            "reads",
            "reads_merged",
            "sectors_read",
            "time_reading",
            "writes",
            "writes_merged",
            "sectors_written",
            "time_writing",
            "in_progress",
            "time_in_progress",
            "weighted_time_in_progress",
        ];
        let name = "kata_guest_diskstat";
        self.head(name, "Disks of the guest; times in milliseconds, sectors of 512 bytes.");
        for line in text.lines() {
            let mut words = line.split_whitespace().skip(2);
            let Some(disk) = words.next() else { continue };
            for (item, number) in ITEMS.iter().zip(words) {
                self.value(name, &[("disk", disk), ("item", item)], number);
            }
        }
    }

    fn interfaces(&mut self, text: &str) {
        const ITEMS: [&str; 16] = [
            "recv_bytes",
            "recv_packets",
            "recv_errs",
            "recv_drop",
            "recv_fifo",
            "recv_frame",
            "recv_compressed",
            "recv_multicast",
            "sent_bytes",
            "sent_packets",
            "sent_errs",
            "sent_drop",
            "sent_fifo",
            "sent_colls",
            "sent_carrier",
            "sent_compressed",
        ];
        let name = "kata_guest_netdev_stat";
        self.head(name, "Network interfaces of the guest.");
        // The first two lines are the heads of the table.
        for line in text.lines().skip(2) {
            let Some((interface, counts)) = line.split_once(':') else { continue };
            for (item, number) in ITEMS.iter().zip(counts.split_whitespace()) {
                self.value(name, &[("interface", interface.trim()), ("item", item)], number);
            }
        }
    }

    /// A summary without quantiles: sum and count.
    fn executor(&mut self, spent: Spent) {
        let name = "vc_agent_executor_seconds";
        let help = "From a task for the container executor to its answer, in seconds.";
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} summary");
        self.value(&format!("{name}_sum"), &[], spent.time.as_secs_f64());
        self.value(&format!("{name}_count"), &[], spent.tasks);
    }

    /// `/proc/self/stat` (proc_pid_stat(5)); the name in it may have spaces, so it is read from behind it.
    fn agent(&mut self, stat: &str) {
        let Some((_, fields)) = stat.rsplit_once(") ") else { return };
        let fields: Vec<f64> =
            fields.split_whitespace().map(|field| field.parse().unwrap_or_default()).collect();
        // The first of these fields is the third of the whole line.
        let field = |number: usize| fields.get(number - 3).copied().unwrap_or_default();
        let page_size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
        #[expect(clippy::cast_precision_loss, reason = "a page size is a small power of two")]
        let page_size = page_size.unwrap_or(4096) as f64;
        for (name, help, value) in [
            ("kata_agent_threads", "Threads of the agent.", field(20)),
            (
                "kata_agent_total_time",
                "Processor time of the agent, in seconds.",
                (field(14) + field(15)) * TICK,
            ),
            ("kata_agent_total_vm", "Virtual memory of the agent, in bytes.", field(23)),
            ("kata_agent_total_rss", "Resident memory of the agent, in bytes.", field(24) * page_size),
        ] {
            self.head(name, help);
            self.value(name, &[], value);
        }
    }
}

fn numbers(text: &str) -> impl Iterator<Item = f64> {
    text.split_whitespace().map_while(|word| word.parse().ok())
}

/// Prometheus' text format escapes these three in labels.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn each_file_becomes_its_metrics() {
        let mut page = Page::default();
        page.load("0.10 0.20 0.30 1/99 1234\n");
        page.cpu_times("cpu  100 0 50 1000 0 0 0 0 0 0\ncpu0 100 0 50 1000 0 0 0 0 0 0\nintr 1 2\n");
        page.pairs("kata_guest_meminfo", "x", "MemTotal:  247328 kB\nHugePages_Total: 0\nodd\n", ':');
        page.disks(" 254       0 vda 1 2 3 4 5 6 7 8 9 10 11 0 0 0 0 0 0\n");
        page.interfaces("Inter-| x\n face |y\n    lo: 1 2 0 0 0 0 0 0 9 2 0 0 0 0 0 0\n");
        page.agent(
            "1 (vc ) guest) S 0 1 1 0 -1 4194560 99 0 1 0 150 50 0 0 20 0 4 0 5 8192 2 18446744073709551615",
        );
        page.executor(Spent { tasks: 3, time: std::time::Duration::from_millis(250) });
        for line in [
            "# TYPE vc_agent_executor_seconds summary",
            "vc_agent_executor_seconds_sum 0.25",
            "vc_agent_executor_seconds_count 3",
            "kata_guest_load{item=\"load15\"} 0.3",
            "kata_guest_cpu_time{cpu=\"total\",item=\"user\"} 1",
            "kata_guest_cpu_time{cpu=\"0\",item=\"system\"} 0.5",
            "kata_guest_meminfo{item=\"memtotal\"} 247328",
            "kata_guest_meminfo{item=\"hugepages_total\"} 0",
            "kata_guest_diskstat{disk=\"vda\",item=\"weighted_time_in_progress\"} 11",
            "kata_guest_netdev_stat{interface=\"lo\",item=\"sent_bytes\"} 9",
            "kata_agent_threads 4",
            "kata_agent_total_time 2",
            "kata_agent_total_vm 8192",
            "# TYPE kata_agent_threads gauge",
        ] {
            assert!(page.0.lines().any(|found| found == line), "{line:?} is not in\n{}", page.0);
        }
    }

    /// What Prometheus refuses: a line of another form, or the same series twice.
    #[test]
    fn the_page_of_a_real_machine_is_readable() {
        let page = metrics(Path::new("/proc"), Spent::default());
        let mut series = HashSet::new();
        for line in page.lines().filter(|line| !line.starts_with("# ")) {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line:?}");
            assert!(
                (name.starts_with("kata_") || name.starts_with("vc_")) && series.insert(name),
                "{line:?}"
            );
        }
        assert!(series.len() > 50, "{page}");
    }
}
