//! What a process has used, from `/proc`: CPU time, bytes written to storage, resident memory.

use std::time::Duration;

use serde::Serialize;

use super::error::BenchError;
use super::report::ProcessReport;

/// Clock ticks per second in `/proc/PID/stat`: `USER_HZ`, which is 100 wherever Linux runs this program.
const TICKS_PER_SECOND: u64 = 100;

/// The counters of a process at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// CPU time in user mode, of all threads.
    pub user: Duration,
    /// CPU time in the kernel, of all threads.
    pub system: Duration,
    /// Bytes sent to storage; `None` when `/proc/PID/io` is not readable.
    pub written_bytes: Option<u64>,
    /// Resident memory.
    pub rss_bytes: u64,
    /// The highest resident memory so far.
    pub rss_peak_bytes: u64,
}

/// What a process has used between two samples.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Usage {
    /// CPU seconds in user mode.
    pub user_seconds: f64,
    /// CPU seconds in the kernel.
    pub system_seconds: f64,
    /// Bytes sent to storage, where they could be read.
    pub written_bytes: Option<u64>,
    /// Resident memory at the first sample.
    pub rss_before_bytes: u64,
    /// Resident memory at the second sample.
    pub rss_bytes: u64,
    /// The highest resident memory since the process began.
    pub rss_peak_bytes: u64,
}

/// Measures the broker's process, if it is known, and this one over a span of time.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    broker: Option<(u32, Sample)>,
    generator: Sample,
}

impl Meter {
    /// Begins to measure.
    ///
    /// # Errors
    /// [`BenchError::Process`] when a process cannot be observed.
    pub fn start(broker: Option<u32>) -> Result<Self, BenchError> {
        let broker = broker.map(|pid| Ok::<_, BenchError>((pid, sample(pid)?))).transpose()?;
        Ok(Self { broker, generator: sample(std::process::id())? })
    }

    /// What the broker (if it is known, and still there) and this process used since, and how much of it
    /// for each of so many messages.
    pub fn finish(&self, messages: u64) -> (Option<ProcessReport>, ProcessReport) {
        let report = |pid, before: &Sample, after: &Sample| {
            ProcessReport::new(pid, Usage::between(before, after), messages)
        };
        let own = std::process::id();
        let generator = sample(own).unwrap_or(self.generator);
        let broker = self.broker.as_ref().and_then(|(pid, before)| {
            let after = sample(*pid).ok()?;
            Some(report(*pid, before, &after))
        });
        (broker, report(own, &self.generator, &generator))
    }
}

/// Reads the counters of process `pid`.
///
/// # Errors
/// [`BenchError::Process`] when there is no such process, or its `/proc` is not as documented.
pub fn sample(pid: u32) -> Result<Sample, BenchError> {
    let stat = read(pid, "stat")?;
    let status = read(pid, "status")?;
    let (user, system) = parse_cpu(&stat).ok_or_else(|| odd(pid, "stat"))?;
    let rss_bytes = parse_field(&status, "VmRSS:").ok_or_else(|| odd(pid, "status"))? * 1024;
    let rss_peak_bytes = parse_field(&status, "VmHWM:").map_or(rss_bytes, |kib| kib * 1024);
    // Another user's process hides its I/O counters; everything else is still worth reporting.
    let written_bytes = read(pid, "io").ok().and_then(|io| parse_field(&io, "write_bytes:"));
    Ok(Sample { user, system, written_bytes, rss_bytes, rss_peak_bytes })
}

impl Usage {
    /// What was used from `before` to `after`.
    pub fn between(before: &Sample, after: &Sample) -> Self {
        let written = after.written_bytes.zip(before.written_bytes);
        Self {
            user_seconds: after.user.saturating_sub(before.user).as_secs_f64(),
            system_seconds: after.system.saturating_sub(before.system).as_secs_f64(),
            written_bytes: written.map(|(after, before)| after.saturating_sub(before)),
            rss_before_bytes: before.rss_bytes,
            rss_bytes: after.rss_bytes,
            rss_peak_bytes: after.rss_peak_bytes,
        }
    }
}

fn read(pid: u32, name: &str) -> Result<String, BenchError> {
    let path = format!("/proc/{pid}/{name}");
    std::fs::read_to_string(&path)
        .map_err(|error| BenchError::Process { pid, reason: format!("{path}: {error}") })
}

fn odd(pid: u32, name: &str) -> BenchError {
    BenchError::Process { pid, reason: format!("/proc/{pid}/{name} lacks an expected field") }
}

/// utime and stime, fields 14 and 15. The name in field 2 may hold blanks and parentheses, so the fields
/// are counted from the last closing one.
fn parse_cpu(stat: &str) -> Option<(Duration, Duration)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let (user, system) = (ticks()?, ticks()?);
    let time = |ticks: u64| Duration::from_millis(ticks.saturating_mul(1000 / TICKS_PER_SECOND));
    Some((time(user), time(system)))
}

/// The number behind a label at the start of a line, without its unit.
fn parse_field(text: &str, label: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(label))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_an_odd_process_name() {
        let stat = "4711 (a) b (c) S 1 4711 4711 0 -1 4194560 900 0 2 0 123 45 6 7 20 0 3 0 88 1000 250";
        let (user, system) = parse_cpu(stat).unwrap();
        assert_eq!(user, Duration::from_millis(1230));
        assert_eq!(system, Duration::from_millis(450));
        assert_eq!(parse_cpu("4711 (short) S 1 2"), None);
        assert_eq!(parse_cpu(""), None);
    }

    #[test]
    fn fields_are_found_by_their_label() {
        let status = "Name:\tbroker\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(parse_field(status, "VmRSS:"), Some(1024));
        assert_eq!(parse_field(status, "VmHWM:"), Some(2048));
        assert_eq!(parse_field(status, "VmSwap:"), None);
        let io = "wchar: 99\ncancelled_write_bytes: 7\nwrite_bytes: 4096\n";
        assert_eq!(parse_field(io, "write_bytes:"), Some(4096));
    }

    #[test]
    fn this_process_can_be_sampled() {
        let sample = sample(std::process::id()).unwrap();
        assert!(sample.rss_bytes > 0 && sample.rss_peak_bytes >= sample.rss_bytes);
    }

    #[test]
    fn a_process_that_is_not_there_is_named() {
        let error = sample(u32::MAX).unwrap_err().to_string();
        assert!(error.contains(&u32::MAX.to_string()), "{error}");
    }

    #[test]
    fn usage_is_the_difference() {
        let before = Sample {
            user: Duration::from_secs(1),
            system: Duration::from_secs(2),
            written_bytes: Some(100),
            rss_bytes: 10,
            rss_peak_bytes: 10,
        };
        let after = Sample { user: Duration::from_secs(4), written_bytes: None, rss_bytes: 30, ..before };
        let usage = Usage::between(&before, &after);
        assert!((usage.user_seconds - 3.0).abs() < 1e-9 && usage.system_seconds.abs() < 1e-9);
        assert_eq!(usage.written_bytes, None);
        assert_eq!((usage.rss_before_bytes, usage.rss_bytes), (10, 30));
    }
}
