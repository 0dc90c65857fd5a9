//! Measures a working day: a directory of C files goes into a machine, is compiled and tested
//! there, and the report comes out.
//!
//! Owns the work, and the ways to do it. All ways use the compiler of the host, by the same root
//! directory. `run -v` starts a machine and ends it; the others use one that runs already.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, ensure};
use futures_util::TryStreamExt;
use metaservice::Destination;

use super::boot::Tool;
use super::guest_agent::GuestAgent;
use super::lab::{Lab, text};
use super::timeouts;
use crate::measure::{Better, Goal, Measure, Role, Setting, Values};

/// Compiles each file, links them, runs the tests and writes their report.
const WORK: &str =
    "set -e; for file in *.c; do cc -O1 -c $file; done; cc -o check *.o; ./check >report";

/// The report of the tests.
const REPORT: &str = "report";

/// The command line of the tool, without the name of the directory and of the report's destination.
fn run_words(source: &Path, report: &Path) -> anyhow::Result<Vec<String>> {
    let volume = format!("{}:/src:overlay", text(source)?);
    let artifact = format!("/src/{REPORT}:{}", text(report)?);
    let words = ["run", "--rm", "--rootfs", "/", "--memory", "3G", "-v", &volume, "-w", "/src"];
    let more = ["--artifact", &artifact, "--", "sh", "-c", WORK];
    Ok(words.into_iter().chain(more).map(str::to_owned).collect())
}

/// Writes the files: each has a function and its test, and the main file calls all tests.
fn write_source(directory: &Path, files: usize) -> anyhow::Result<()> {
    let (mut declared, mut called) = (String::new(), String::new());
    for number in 1..files {
        let unit = format!(
            "#include <stdio.h>\n#include <string.h>\n\
             static unsigned mix(unsigned x) {{ return (x ^ {number}u) * 2654435761u; }}\n\
             int test_{number}(void) {{\n\
             \x20   char text[64]; unsigned sum = 0;\n\
             \x20   for (unsigned i = 0; i < 1000; i++) sum += mix(i);\n\
             \x20   snprintf(text, sizeof text, \"unit {number}: %u\", sum);\n\
             \x20   puts(text);\n\
             \x20   return strlen(text) == 0;\n}}\n"
        );
        std::fs::write(directory.join(format!("unit{number}.c")), unit)?;
        writeln!(declared, "int test_{number}(void);")?;
        writeln!(called, "    failed += test_{number}();")?;
    }
    let main = format!(
        "{declared}int main(void) {{\n    int failed = 0;\n{called}    return failed;\n}}\n"
    );
    Ok(std::fs::write(directory.join("main.c"), main)?)
}

/// The directory as a tar archive.
fn pack(directory: &Path) -> anyhow::Result<Vec<u8>> {
    let packed = Command::new("tar").arg("-C").arg(directory).args(["-c", "."]).output()?;
    ensure!(packed.status.success(), "tar: {}", String::from_utf8_lossy(&packed.stderr));
    Ok(packed.stdout)
}

/// The time of the whole, and of the files in and out alone.
fn times(begun: Instant, work: f64) -> Values {
    let all = begun.elapsed().as_secs_f64();
    vec![("time", all), ("files", all - work)]
}

/// The time of some work, in seconds.
fn timed(work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let begun = Instant::now();
    work()?;
    Ok(begun.elapsed().as_secs_f64())
}

/// A report has a line for each test.
fn check(report: &[u8], files: usize) -> anyhow::Result<()> {
    let lines = report.iter().filter(|byte| **byte == b'\n').count();
    ensure!(lines == files - 1, "{lines} of {} tests ran", files - 1);
    Ok(())
}

/// A directory of C files, compiled and tested in a machine.
pub(super) fn day(setting: &Setting) -> anyhow::Result<Measure> {
    let files = setting.pick(5, 41);
    let host = Rc::new(tempfile::tempdir()?);
    let source = host.path().join("source");
    std::fs::create_dir(&source)?;
    write_source(&source, files)?;
    let archive = Rc::new(pack(&source)?);
    let lab = Rc::new(RefCell::new(Lab::boot(setting)?));
    let tool = Tool::new(setting)?;
    // The first run unpacks and packs files once. This is not part of the measure.
    tool.start(&["run", "--rm", "--rootfs", "/", "--", "true"].map(str::to_owned))?;
    let how = format!(
        "A directory of {files} C files goes into a machine, is compiled file by file, linked and \
         tested, and the report of the tests comes out. All ways use the host's compiler, by the \
         same root directory. *run -v* is one command: it starts a machine, shares the directory \
         as a volume, fetches the report as an artifact, and ends the machine. The others use a \
         machine that runs already: *write and exec* are the calls behind `cp` and `exec`; `ssh` \
         and `scp -r` open a connection each; QEMU's guest agent gets an archive by \
         `guest-file-write` and unpacks it. *Files* is the time without compiling and testing."
    );
    let ways = Ways { files, host, source, archive, lab };
    let (by_run, by_exec, by_ssh, by_agent) = (ways.clone(), ways.clone(), ways.clone(), ways);
    let mut agent = None;
    Ok(Measure::new("A working day: files in, compile, test, report out", how)
        .quantity("time", "s", Better::Less)
        .quantity("files", "s", Better::Less)
        .subject("run -v", Role::Metaservice, move || by_run.run(&tool))
        .subject("write and exec", Role::Metaservice, move || by_exec.exec())
        .subject("ssh and scp", Role::Peer, move || by_ssh.secure_shell())
        .subject("qemu-ga", Role::Peer, move || by_agent.guest_agent(&mut agent))
        .goal(Goal::ratio("run -v", "time", 1.3, "ssh and scp"))
        .goal(Goal::ratio("write and exec", "files", 0.3, "ssh and scp"))
        .goal(Goal::ratio("write and exec", "files", 1.0, "qemu-ga")))
}

/// The ways to do the work.
#[derive(Clone)]
struct Ways {
    files: usize,
    host: Rc<tempfile::TempDir>,
    source: std::path::PathBuf,
    archive: Rc<Vec<u8>>,
    lab: Rc<RefCell<Lab>>,
}

/// The directory in the guest of the lab, in its memory.
const INSIDE: &str = "/run/day";

impl Ways {
    fn run(&self, tool: &Tool) -> anyhow::Result<Values> {
        let report = self.host.path().join("report.run");
        let words = run_words(&self.source, &report)?;
        let time = timed(|| tool.start(&words))?;
        check(&std::fs::read(report)?, self.files)?;
        Ok(vec![("time", time)])
    }

    /// An empty directory in the guest. This is not part of the measure.
    fn empty(&self) -> anyhow::Result<()> {
        let make = format!("rm -rf {INSIDE} && mkdir {INSIDE}");
        self.lab.borrow().exec(&["sh", "-c", &make]).map(drop)
    }

    fn exec(&self) -> anyhow::Result<Values> {
        self.empty()?;
        let lab = self.lab.borrow();
        let begun = Instant::now();
        lab.ask("write", async {
            Ok(lab.service.write(Destination::directory(INSIDE), &self.archive[..]).await?)
        })?;
        let script = format!("cd {INSIDE}; {WORK}");
        let work = timed(|| lab.exec(&["sh", "-c", &script]).map(drop))?;
        let report = lab.ask("read", async {
            let mut reading = lab.service.read(format!("{INSIDE}/{REPORT}")).open().await?;
            let mut report = Vec::new();
            while let Some(chunk) = reading.try_next().await? {
                report.extend_from_slice(&chunk);
            }
            Ok(report)
        })?;
        let times = times(begun, work);
        check(&report, self.files)?;
        Ok(times)
    }

    fn secure_shell(&self) -> anyhow::Result<Values> {
        self.empty()?;
        let lab = self.lab.borrow();
        let (shell, report) = (lab.secure_shell()?, self.host.path().join("report.ssh"));
        let begun = Instant::now();
        // It creates the directory of this name.
        shell.send(&self.source, INSIDE)?;
        let script = format!("cd {INSIDE}/source; {WORK}");
        let work = timed(|| shell.run(&[&script], false))?;
        shell.fetch(&format!("{INSIDE}/source/{REPORT}"), &report)?;
        let times = times(begun, work);
        check(&std::fs::read(report)?, self.files)?;
        Ok(times)
    }

    fn guest_agent(&self, agent: &mut Option<GuestAgent>) -> anyhow::Result<Values> {
        self.empty()?;
        let agent = match agent {
            Some(agent) => agent,
            None => agent.insert(GuestAgent::start(&self.lab.borrow())?),
        };
        let archive = format!("{INSIDE}/archive");
        let begun = Instant::now();
        agent.write(&archive, &self.archive)?;
        agent.exec("/bin/tar", &["-C", INSIDE, "-xf", &archive])?;
        let script = format!("cd {INSIDE}; {WORK}");
        let work = timed(|| agent.exec("/bin/sh", &["-c", &script]))?;
        let report = format!("{INSIDE}/{REPORT}");
        let received = agent.read(&report, 1 << 20, u64::MAX)?;
        let times = times(begun, work);
        let lab = self.lab.borrow();
        let whole = lab.exec(&["cat", &report])?;
        ensure!(received == whole.len() as u64, "{received} of {} bytes came", whole.len());
        check(whole.as_bytes(), self.files).context("the report of QEMU's guest agent")?;
        Ok(times)
    }
}

impl Tool {
    /// Runs the tool with these arguments, which must succeed.
    fn start(&self, arguments: &[String]) -> anyhow::Result<()> {
        let mut command = self.command();
        command.args(arguments).stdout(std::process::Stdio::null());
        timeouts::run(command).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_has_as_many_files_and_tests_as_it_says() {
        let directory = tempfile::tempdir().unwrap();
        write_source(directory.path(), 3).unwrap();
        let mut names: Vec<_> = std::fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["main.c", "unit1.c", "unit2.c"]);
        let main = std::fs::read_to_string(directory.path().join("main.c")).unwrap();
        assert_eq!(main.matches("failed += test_").count(), 2);
        check(b"unit 1: 7\nunit 2: 9\n", 3).unwrap();
        assert!(check(b"unit 1: 7\n", 3).is_err());
    }
}
