//! The presets: policies for common tools, as files that a user can read.

/// A policy that comes with the crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preset {
    name: &'static str,
    text: &'static str,
}

/// All presets, in order of their names.
const PRESETS: [Preset; 5] = [
    Preset { name: "apt", text: include_str!("../presets/apt.toml") },
    Preset { name: "cargo", text: include_str!("../presets/cargo.toml") },
    Preset { name: "git", text: include_str!("../presets/git.toml") },
    Preset { name: "npm", text: include_str!("../presets/npm.toml") },
    Preset { name: "pip", text: include_str!("../presets/pip.toml") },
];

impl Preset {
    /// All presets, in order of their names.
    ///
    /// ```
    /// use metaservice_egress::file::Preset;
    ///
    /// let names: Vec<_> = Preset::all().iter().map(Preset::name).collect();
    /// assert_eq!(names, ["apt", "cargo", "git", "npm", "pip"]);
    /// ```
    #[must_use]
    pub fn all() -> &'static [Self] {
        &PRESETS
    }

    /// The preset of a name.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        PRESETS.into_iter().find(|preset| preset.name == name)
    }

    /// Its name, as policies include it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The file, with its comments.
    #[must_use]
    pub const fn text(&self) -> &'static str {
        self.text
    }

    /// What it is for: the first line of the file, without the name.
    #[must_use]
    pub fn about(&self) -> &'static str {
        let line = self.text.lines().next().unwrap_or_default();
        line.split_once(": ").map_or(line, |(_, about)| about)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::{Source, read};
    use crate::rule::Pattern;

    #[test]
    fn a_preset_allows_names_at_ports_and_explains_each_of_them() {
        for preset in Preset::all() {
            let name = preset.name();
            assert_eq!(Preset::find(name), Some(*preset));
            assert!(preset.text().starts_with(&format!("# {name}: ")), "{name}");
            assert!(preset.about().ends_with('.'), "{}", preset.about());
            let no_file = |_: &_| -> std::io::Result<_> { panic!("it includes no file") };
            let policy = read(&Source::Preset(name.to_owned()), no_file).unwrap();
            assert!(!policy.allow().is_empty() && policy.deny().is_empty(), "{name}");
            for rule in policy.allow() {
                let is_name =
                    matches!(rule.pattern, Pattern::Name(_, false) | Pattern::Below(_, false));
                assert!(is_name && !rule.ports.is_all(), "{name}: {rule}");
                // The file has the rule as it is shown.
                assert!(preset.text().contains(&format!("\"{rule}\"")), "{name}: {rule}");
            }
            let mut lines = preset.text().lines().skip_while(|line| *line != "allow = [").skip(1);
            assert!(lines.next().unwrap().trim_start().starts_with("# "), "{name}");
        }
        assert_eq!(Preset::find("Pip"), None);
    }
}
