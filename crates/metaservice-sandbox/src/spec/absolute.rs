//! A description that does not depend on the working directory.

use std::path::{Path, PathBuf};

use metaservice_egress::file::Source;

use super::{ArtifactSpec, CloudSpec, CopyInSpec, HardwareSpec, JobSpec, NetworkSpec};

impl JobSpec {
    /// The same description, with each relative path of the host below `base`.
    ///
    /// `is_image` says whether a word is the name of an image of the store. Other words for an
    /// image, and public keys, are paths if there are such files. Blocks: looks for files.
    #[must_use]
    pub fn absolute(mut self, base: &Path, is_image: impl Fn(&str) -> bool) -> Self {
        // Each member is named here: a new one has to be decided on.
        let Self {
            version: _,
            name: _,
            command: _,
            stderr: _,
            env: _,
            secrets: _,
            workdir: _,
            user: _,
            hostname: _,
            entrypoint: _,
            terminal: _,
            stdin: _,
            session: _,
            timeout: _,
            keep_on_failure: _,
            copy_in,
            artifacts,
            artifacts_on: _,
            log,
            max_log: _,
            max_artifact: _,
            limits: _,
            cloud,
            machine,
        } = &mut self;
        for CopyInSpec { from, to: _ } in copy_in {
            // An empty path is an error, and stays one.
            if !from.as_os_str().is_empty() {
                *from = base.join(&*from);
            }
        }
        for ArtifactSpec { path, to } in artifacts {
            *to = destination(path, to.take(), base);
        }
        join(log, base);
        let CloudSpec { ssh_keys, user_data } = cloud;
        for key in ssh_keys {
            let file = base.join(&*key);
            if let (true, Some(file)) = (file.exists(), file.to_str()) {
                file.clone_into(key);
            }
        }
        join(user_data, base);
        hardware(machine, base, is_image);
        self
    }
}

fn hardware(machine: &mut HardwareSpec, base: &Path, is_image: impl Fn(&str) -> bool) {
    let HardwareSpec {
        image,
        rootfs,
        show,
        hide,
        volumes,
        kernel,
        initrd,
        cpus: _,
        memory: _,
        accel: _,
        network,
        boot_timeout: _,
        snapshot: _,
        kaslr: _,
        pcap,
        console,
    } = machine;
    let is_name = |image: &Path| image.to_str().is_some_and(&is_image);
    if image.as_deref().is_some_and(|image| !is_name(image) && base.join(image).exists()) {
        join(image, base);
    }
    if kernel.as_deref() != Some(Path::new("builtin")) {
        join(kernel, base);
    }
    for path in [rootfs, initrd, pcap, console] {
        join(path, base);
    }
    let NetworkSpec { mode: _, allow: _, deny: _, policy, log, publish: _ } = network;
    // A preset is no path.
    if policy.as_deref().is_some_and(|path| matches!(Source::of_path(path), Source::File(_))) {
        join(policy, base);
    }
    join(log, base);
    let volumes = volumes.iter_mut().map(|volume| &mut volume.host);
    for path in show.iter_mut().chain(hide).chain(volumes) {
        *path = base.join(&*path);
    }
}

fn join(path: &mut Option<PathBuf>, base: &Path) {
    if let Some(path) = path {
        *path = base.join(&*path);
    }
}

/// The destination of an artifact. A slash at the end stays: it says that this is a directory.
fn destination(source: &str, to: Option<PathBuf>, base: &Path) -> Option<PathBuf> {
    match to {
        // Both are errors, and stay what they are.
        Some(to) if to.as_os_str().is_empty() || to == Path::new("-") => Some(to),
        Some(to) => Some(base.join(to)),
        // The name that the file has in the guest, in this directory.
        None if source.is_empty() => None,
        None => Some(base.join("")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_of_the_host_gets_its_directory() {
        let base = tempfile::tempdir().unwrap();
        for file in ["key.pub", "debian"] {
            std::fs::write(base.path().join(file), "").unwrap();
        }
        let mut spec = JobSpec::new(["make"]);
        spec.log = Some("log".into());
        spec.artifacts = ["a:out/", "a:out", "a", "a:/x"].map(|text| text.parse().unwrap()).into();
        spec.cloud.ssh_keys = vec!["key.pub".to_owned(), "ssh-ed25519 AAAA".to_owned()];
        spec.machine.image = Some("debian".into());
        spec.machine.kernel = Some("builtin".into());
        spec.machine.rootfs = Some(".".into());
        spec.machine.hide = vec!["/a".into(), "b".into()];
        spec.machine.network.policy = Some("net.toml".into());
        spec.machine.network.log = Some("net.jsonl".into());
        let below = |name: &str| base.path().join(name);
        let named = spec.clone().absolute(base.path(), |name| name == "debian");
        assert_eq!(named.machine.image, Some("debian".into()));
        assert_eq!(named.machine.kernel, Some("builtin".into()));
        assert_eq!(named.machine.rootfs, Some(below(".")));
        assert_eq!(named.machine.hide, [PathBuf::from("/a"), below("b")]);
        assert_eq!(named.log, Some(below("log")));
        let to: Vec<_> = named.artifacts.iter().map(|artifact| artifact.to.clone()).collect();
        assert_eq!(to, [below("out/"), below("out"), below(""), "/x".into()].map(Some));
        assert!(to[2].as_ref().unwrap().to_str().unwrap().ends_with('/'));
        assert_eq!(named.cloud.ssh_keys[0], below("key.pub").to_str().unwrap());
        assert_eq!(named.cloud.ssh_keys[1], "ssh-ed25519 AAAA");
        assert_eq!(named.machine.network.policy, Some(below("net.toml")));
        assert_eq!(named.machine.network.log, Some(below("net.jsonl")));
        spec.machine.network.policy = Some("pip".into());
        let preset = spec.clone().absolute(base.path(), |_| false);
        assert_eq!(preset.machine.network.policy, Some("pip".into()));
        let file = spec.absolute(base.path(), |_| false);
        assert_eq!(file.machine.image, Some(below("debian")));
    }
}
