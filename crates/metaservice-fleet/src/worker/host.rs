//! What the host of a worker has, as the kernel says it.

use std::collections::BTreeSet;

use crate::requirement::Features;

/// The features of a worker on this host: its memory and processors, the labels `arch=` and `os=`,
/// and those of its owner.
#[must_use]
pub fn host_features(labels: BTreeSet<String>) -> Features {
    let mut labels = labels;
    labels.insert(format!("arch={}", std::env::consts::ARCH));
    labels.insert(format!("os={}", std::env::consts::OS));
    let information = rustix::system::sysinfo();
    #[allow(clippy::unnecessary_cast, reason = "the type differs between architectures")]
    let memory = information.totalram as u64 * u64::from(information.mem_unit);
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let processors = u32::try_from(processors).unwrap_or(u32::MAX);
    Features { labels, memory, processors }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_has_what_its_host_has() {
        let features = host_features(BTreeSet::from(["mine".to_owned()]));
        assert!(features.memory > 64 << 20 && features.processors > 0, "{features:?}");
        assert!(features.labels.contains("mine") && features.labels.contains("os=linux"));
        let arch = format!("arch={}", std::env::consts::ARCH);
        assert!(features.meet(&[arch, "cpus=1".to_owned(), "mem=64M".to_owned()]));
        assert!(!features.meet(&["arch=none".to_owned()]));
    }
}
