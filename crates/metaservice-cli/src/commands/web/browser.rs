//! Opens the page in a browser.
//!
//! The link is a secret, and the arguments of a process are not. So the browser gets the path of a
//! private file that leads to the link.

use std::env;
use std::fs;
use std::io::IsTerminal;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use metaservice_private::bases::temporary;
use metaservice_sandbox::exit::CleanUp;

/// The program that opens what it is given.
const OPENER: &str = "xdg-open";

/// The file exists as long as this value.
pub(super) struct Opened(#[expect(dead_code)] CleanUp);

/// Opens the link, if there is somebody who sees a browser. Without one, the link is printed all
/// the same, so errors are left out.
pub(super) fn open(link: &str) -> Option<Opened> {
    let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
    if !std::io::stdout().is_terminal() || !has_screen(is_set) {
        return None;
    }
    let mut builder = tempfile::Builder::new();
    builder.prefix("metaservice-").permissions(fs::Permissions::from_mode(0o700));
    let directory = builder.tempdir_in(temporary().ok()?).ok()?;
    let path = directory.path().join("page.html");
    fs::write(&path, redirection(link)).ok()?;
    let directory = directory.keep();
    let opened = Opened(CleanUp::new(move || drop(fs::remove_dir_all(directory))));
    let mut command = Command::new(OPENER);
    command.arg(&path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    metaservice_qemu::without_descriptors(&mut command);
    let mut child = command.spawn().ok()?;
    // It may become the browser itself, and live longer than this process.
    std::thread::spawn(move || child.wait());
    Some(opened)
}

/// Whether a browser has a screen, on this host.
fn has_screen(is_set: impl Fn(&str) -> bool) -> bool {
    let is_remote = is_set("SSH_CONNECTION") || is_set("SSH_TTY");
    !is_remote && (is_set("WAYLAND_DISPLAY") || is_set("DISPLAY"))
}

/// A page that leads to a link. A link has only characters that need no quoting.
fn redirection(link: &str) -> String {
    format!(
        "<!doctype html><meta charset=\"utf-8\"><title>metaservice</title>\
         <meta http-equiv=\"refresh\" content=\"0; url={link}\"><a href=\"{link}\">Jobs</a>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_opens_where_its_user_sits() {
        let screen = |set: &[&str]| has_screen(|name| set.contains(&name));
        assert!(screen(&["DISPLAY"]) && screen(&["WAYLAND_DISPLAY"]));
        assert!(!screen(&[]) && !screen(&["DISPLAY", "SSH_CONNECTION"]));
    }

    #[test]
    fn the_file_leads_to_the_link() {
        let page = redirection("http://127.0.0.1:7878/#token=ab");
        assert!(page.contains("0; url=http://127.0.0.1:7878/#token=ab\""), "{page}");
    }
}
