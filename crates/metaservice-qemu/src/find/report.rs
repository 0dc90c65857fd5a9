//! What was found on the host, and what is missing.

use std::fmt;
use std::path::PathBuf;

use super::kernel::Kernel;
use super::qemu::Qemu;

/// What to type if something is missing.
pub(super) const INSTALL_HINT: &str = "type 'metaservice doctor --install'";

/// The result for one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding<T> {
    /// Found, and usable.
    Found(T),
    /// Not found, or not usable.
    Missing {
        /// What is wrong.
        problem: String,
        /// What to do about it.
        hint: String,
    },
}

impl<T> Finding<T> {
    /// The thing, if it was found.
    pub const fn found(&self) -> Option<&T> {
        match self {
            Self::Found(thing) => Some(thing),
            Self::Missing { .. } => None,
        }
    }
}

/// The result for everything. Its [`Display`](fmt::Display) is a list for people.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// QEMU.
    pub qemu: Finding<Qemu>,
    /// The kernel for machines that do not boot from a disk.
    pub kernel: Finding<Kernel>,
    /// The static busybox for the userland of such machines.
    pub busybox: Finding<PathBuf>,
    /// QEMU's tool for disk images. No machine needs it; it helps people who make images.
    pub qemu_img: Finding<PathBuf>,
}

/// The tools of a [`Report`] in which nothing is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tools {
    /// QEMU.
    pub qemu: Qemu,
    /// The kernel.
    pub kernel: Kernel,
    /// The static busybox.
    pub busybox: PathBuf,
}

/// A tool that a machine needs is missing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .problems.join("; "))]
#[non_exhaustive]
pub struct MissingTools {
    /// What is wrong, one sentence for each tool.
    pub problems: Vec<String>,
    /// What to do about it.
    pub hint: String,
}

impl Report {
    /// The tools, if everything was found that a machine needs.
    ///
    /// # Errors
    /// If QEMU, the kernel or busybox is missing.
    pub fn require(&self) -> Result<Tools, MissingTools> {
        if let (Finding::Found(qemu), Finding::Found(kernel), Finding::Found(busybox)) =
            (&self.qemu, &self.kernel, &self.busybox)
        {
            let (qemu, kernel, busybox) = (qemu.clone(), kernel.clone(), busybox.clone());
            return Ok(Tools { qemu, kernel, busybox });
        }
        fn note<T>(finding: &Finding<T>, problems: &mut Vec<String>, hints: &mut Vec<String>) {
            if let Finding::Missing { problem, hint } = finding {
                problems.push(problem.clone());
                if !hints.contains(hint) {
                    hints.push(hint.clone());
                }
            }
        }
        let (mut problems, mut hints) = (Vec::new(), Vec::new());
        note(&self.qemu, &mut problems, &mut hints);
        note(&self.kernel, &mut problems, &mut hints);
        note(&self.busybox, &mut problems, &mut hints);
        Err(MissingTools { problems, hint: hints.join("; ") })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn line<T>(
            f: &mut fmt::Formatter<'_>,
            name: &str,
            finding: &Finding<T>,
            text: impl Fn(&T) -> String,
        ) -> fmt::Result {
            match finding {
                Finding::Found(thing) => writeln!(f, "ok       {name:<9} {}", text(thing)),
                Finding::Missing { problem, hint } => {
                    writeln!(f, "missing  {name:<9} {problem}: {hint}")
                }
            }
        }
        line(f, "qemu", &self.qemu, ToString::to_string)?;
        line(f, "kernel", &self.kernel, ToString::to_string)?;
        line(f, "busybox", &self.busybox, |path| path.display().to_string())?;
        line(f, "qemu-img", &self.qemu_img, |path| path.display().to_string())
    }
}
