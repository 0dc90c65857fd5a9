//! Measures a complete run of a machine, from start to exit, and the kernel's part of it.

use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, ensure};
use metaservice_qemu::{Boot, BootFile, Machine, MachineSpec, Tools, initramfs};
use tokio::runtime::Runtime;

use super::lab::text;
use super::scratch::{Scratch, cache};
use super::timeouts::{self, within};
use crate::measure::{Better, Goal, Measure, Role, Setting, Values};

fn measure(title: &'static str, how: String) -> Measure {
    Measure::new(title, how).quantity("time", "s", Better::Less)
}

/// A command, from the start of the tool to its exit.
pub(super) fn run(setting: &Setting) -> anyhow::Result<Measure> {
    let tool = Rc::new(Tool::new(setting)?);
    let limit = Minimum::new()?;
    // The first run unpacks and packs files once. This is not part of the measure.
    tool.run(&["--no-snapshot"], BOOTING)?;
    tool.take_snapshot()?;
    let warm = Rc::clone(&tool);
    let how = "`metaservice run -- true` with the built-in guest, from the start of the process to \
        its exit. *Cold start* boots a machine (`--no-snapshot`). *Warm start* restores a machine from \
        the snapshot of `metaservice image snapshot builtin`. *Boot and power off* is the limit: \
        the same QEMU with the same devices, and the same kernel with the same command line. Its \
        initramfs has only an init of one system call, which powers the machine off.";
    Ok(measure("A run, from start to exit", how.to_owned())
        .subject("cold start", Role::Metaservice, move || tool.run(&["--no-snapshot"], BOOTING))
        .subject("warm start", Role::Metaservice, move || warm.run(&[], RESTORING))
        .subject("boot and power off", Role::Limit, move || limit.sample())
        .goal(Goal::ratio("cold start", "time", 1.3, "boot and power off"))
        .goal(Goal::ratio("warm start", "time", 0.35, "cold start")))
}

/// The events by which the tool reports how its machine starts.
const BOOTING: &str = "\"event\":\"booting\"";
const RESTORING: &str = "\"event\":\"restored\"";

/// The tool with a separate cache: it has the user's QEMU, kernel and busybox, and no snapshots.
pub(super) struct Tool {
    path: PathBuf,
    scratch: Scratch,
}

impl Tool {
    pub(super) fn new(setting: &Setting) -> anyhow::Result<Self> {
        let (path, scratch) = (setting.tool()?.to_owned(), Scratch::new()?);
        let own = scratch.path().join("metaservice");
        std::fs::create_dir(&own)?;
        for name in ["bin", "kernel", "qemu", "vmlinux"] {
            let cached = cache()?.join(name);
            if cached.exists() {
                symlink(cached, own.join(name))?;
            }
        }
        Ok(Self { path, scratch })
    }

    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.env("XDG_CACHE_HOME", self.scratch.path()).env_remove("METASERVICE_NO_SNAPSHOT");
        command
    }

    /// Takes a snapshot of the built-in guest.
    fn take_snapshot(&self) -> anyhow::Result<()> {
        let mut command = self.command();
        command.args(["image", "snapshot", "builtin"]);
        timeouts::run(command).map(drop)
    }

    /// The time of a run, which must report `event`.
    fn run(&self, options: &[&str], event: &str) -> anyhow::Result<Values> {
        let begun = Instant::now();
        let mut command = self.command();
        command.args(["run", "--json"]).args(options).args(["--", "true"]);
        let stderr = timeouts::run(command)?;
        let time = begun.elapsed().as_secs_f64();
        ensure!(stderr.contains(event), "{event} is missing: {stderr}");
        Ok(vec![("time", time)])
    }
}

/// A machine whose first process powers it off.
struct Minimum {
    runtime: Runtime,
    tools: Tools,
    initramfs: PathBuf,
    _directory: tempfile::TempDir,
}

impl Minimum {
    fn new() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let initramfs = directory.path().join("power-off.cpio");
        std::fs::write(&initramfs, archive(&power_off()))?;
        let tools = metaservice_qemu::find().require()?;
        Ok(Self { runtime: Runtime::new()?, tools, initramfs, _directory: directory })
    }

    fn sample(&self) -> anyhow::Result<Values> {
        self.runtime.block_on(async {
            let begun = Instant::now();
            let (_host, guest) = std::os::unix::net::UnixStream::pair()?;
            let boot = Boot::from_kernel(&self.tools.kernel).initramfs(&self.initramfs);
            let card =
                metaservice_qemu::Card::new(guest.into(), metaservice_qemu::MacAddress::random());
            let machine =
                Machine::start(MachineSpec::new(&self.tools.qemu, boot).card(card)).await?;
            let exit =
                within(timeouts::SAMPLE, "the machine", async { Ok(machine.wait().await) }).await?;
            let time = begun.elapsed().as_secs_f64();
            ensure!(exit.cause == metaservice_qemu::ExitCause::GuestPoweredOff, "{}", exit.cause);
            Ok(vec![("time", time)])
        })
    }
}

/// A program of one system call, `reboot` with the command for power off, for x86-64.
fn power_off() -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u16 = 64 + 56;
    #[rustfmt::skip]
    const CODE: [u8; 24] = [
        0xb8, 169, 0, 0, 0,                // mov eax, SYS_reboot
        0xbf, 0xad, 0xde, 0xe1, 0xfe,      // mov edi, LINUX_REBOOT_MAGIC1
        0xbe, 0x69, 0x19, 0x12, 0x28,      // mov esi, LINUX_REBOOT_MAGIC2
        0xba, 0xdc, 0xfe, 0x21, 0x43,      // mov edx, LINUX_REBOOT_CMD_POWER_OFF
        0x0f, 0x05,                        // syscall
        0xeb, 0xfe,                        // loop
    ];
    let entry = BASE + u64::from(HEADERS);
    let length = u64::from(HEADERS) + CODE.len() as u64;
    let mut program = b"\x7fELF\x02\x01\x01".to_vec();
    program.resize(16, 0);
    for half in [2u16, 62] {
        program.extend(half.to_le_bytes());
    }
    program.extend(1u32.to_le_bytes());
    for word in [entry, 64, 0] {
        program.extend(word.to_le_bytes());
    }
    program.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 1, 0, 0, 0] {
        program.extend(half.to_le_bytes());
    }
    // One segment, readable and executable.
    for half in [1u32, 5] {
        program.extend(half.to_le_bytes());
    }
    for word in [0, BASE, BASE, length, length, 4096] {
        program.extend(word.to_le_bytes());
    }
    program.extend(CODE);
    program
}

/// An initramfs (cpio, "newc") with only `/init`.
fn archive(init: &[u8]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, mode, content) in [("init", 0o100_755, init), ("TRAILER!!!", 0, &[][..])] {
        archive.extend(b"070701");
        let fields = [1, mode, 0, 0, 1, 0, content.len(), 0, 0, 0, 0, name.len() + 1, 0];
        archive.extend(fields.iter().flat_map(|field| format!("{field:08x}").into_bytes()));
        archive.extend(name.bytes().chain([0]));
        archive.resize(archive.len().next_multiple_of(4), 0);
        archive.extend(content);
        archive.resize(archive.len().next_multiple_of(4), 0);
    }
    archive
}

/// Ways to boot, until the end of the same command of the same agent.
pub(super) fn ways(setting: &Setting) -> anyhow::Result<Measure> {
    let tool = Rc::new(Tool::new(setting)?);
    let tools = metaservice_qemu::find().require()?;
    let agent = std::fs::read(setting.agent()?)?;
    let scratch = Scratch::new()?;
    let initramfs = initramfs::Contents::new(agent, &tools).cache(scratch.path());
    let plain = initramfs::build(&initramfs)?;
    let packed = scratch.path().join("packed.cpio.gz");
    pack(plain.path(), &packed)?;
    let q35 = scratch.path().join("q35");
    write_q35(&tools, &q35)?;
    let (elf, image) = (unpacked(&tools)?, tools.kernel.image.clone());
    let how = "`metaservice run --kernel FILE --initrd FILE -- true`, which ends when the machine \
        powers itself off. *Plain*: the kernel is an ELF file, and the initramfs is not \
        compressed. The others change one thing each: the initramfs is compressed by gzip; the \
        kernel is the image that unpacks itself; QEMU's machine type is q35 instead of pc.";
    let way = |kernel: &Path, initrd: &Path, qemu: Option<&Path>| {
        let (tool, qemu) = (Rc::clone(&tool), qemu.map(Path::to_owned));
        let options = ["--kernel", text(kernel)?, "--initrd", text(initrd)?];
        let options = options.map(str::to_owned);
        anyhow::Ok(move || {
            let mut command = tool.command();
            if let Some(qemu) = &qemu {
                command.env("METASERVICE_QEMU", qemu);
            }
            command.arg("run").args(&options).args(["--", "true"]);
            let begun = Instant::now();
            timeouts::run(command)?;
            Ok(vec![("time", begun.elapsed().as_secs_f64())])
        })
    };
    let other_type = way(elf.path(), plain.path(), Some(&q35))?;
    Ok(measure("Ways to boot", how.to_owned())
        .subject(
            "plain kernel and initramfs",
            Role::Metaservice,
            way(elf.path(), plain.path(), None)?,
        )
        .subject("compressed initramfs", Role::Limit, way(elf.path(), &packed, None)?)
        .subject("kernel image", Role::Limit, way(&image, plain.path(), None)?)
        .subject("machine type q35", Role::Limit, move || {
            let _keep = (&scratch, &elf, &plain);
            other_type()
        }))
}

fn pack(from: &Path, to: &Path) -> anyhow::Result<()> {
    let mut gzip = Command::new("gzip");
    gzip.arg("-k").arg("--stdout").arg(from).stdout(std::fs::File::create(to)?);
    let status = gzip.status()?;
    ensure!(status.success(), "gzip failed");
    Ok(())
}

/// Writes a script that runs QEMU with another machine type.
fn write_q35(tools: &Tools, path: &Path) -> anyhow::Result<()> {
    let mut script = std::fs::File::create(path)?;
    write!(
        script,
        "#!/bin/sh\nfor word; do shift\ncase $word in pc,*) word=q35,${{word#pc,}} ;; esac\n\
         set -- \"$@\" \"$word\"; done\nexec {} \"$@\"\n",
        tools.qemu.path.display()
    )?;
    script.set_permissions(std::fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// The kernel as an ELF file.
fn unpacked(tools: &Tools) -> anyhow::Result<BootFile> {
    match Boot::from_kernel(&tools.kernel) {
        Boot::Direct { kernel, .. } => Ok(kernel),
        Boot::Firmware => None.context("a kernel is booted without firmware"),
    }
}
