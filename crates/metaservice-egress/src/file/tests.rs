use std::collections::HashMap;
use std::error::Error;
use std::path::Component;

use proptest::prelude::*;

use super::*;

/// A path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            component => plain.push(component),
        }
    }
    plain
}

/// Reads the policy of the file `main.toml` among these.
fn policy(files: &[(&str, &str)]) -> Result<Policy, PolicyError> {
    let files: HashMap<&str, &str> = files.iter().copied().collect();
    read(&Source::of("main.toml"), |path| {
        let canonical = plain(path);
        let text = files.get(canonical.to_str().unwrap()).ok_or(io::ErrorKind::NotFound)?;
        Ok(Text { canonical, text: (*text).to_owned() })
    })
}

fn texts(rules: &[Rule]) -> Vec<String> {
    rules.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn error(files: &[(&str, &str)]) -> String {
    let error = policy(files).unwrap_err();
    let causes = std::iter::successors(Some(&error as &dyn Error), |error| (*error).source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[test]
fn a_policy_has_the_rules_of_all_its_files() {
    let policy = policy(&[
        (
            "main.toml",
            "include = ['d/more.toml', 'pip', 'd/x.toml']\nallow = ['a.example:443'] # why\n",
        ),
        ("d/more.toml", "include = ['../y.toml', './x.toml', 'pip']\ndeny = ['b.example']"),
        ("d/x.toml", "allow = ['public']"),
        ("y.toml", "allow = ['y.example']"),
    ]);
    let policy = policy.unwrap();
    let expected =
        ["a.example:443", "y.example", "public", "pypi.org:443", "files.pythonhosted.org:443"];
    assert_eq!(texts(policy.allow()), expected);
    assert_eq!(texts(policy.deny()), ["b.example"]);
}

#[test]
fn an_error_names_the_file_and_the_line() {
    for (text, says) in [
        ("\nallow = ['a example']", "in main.toml, line 2: in the rule \"a example\": "),
        ("\nallowed = []", "in main.toml, line 2: unknown field `allowed`"),
        ("\nallow = 'a'", "in main.toml, line 2: invalid type"),
        ("allow = [\n 'a.example',\n 'b.example:x',\n]", "in main.toml, line 3: in the rule"),
        ("deny = [\n\n 7]", "in main.toml, line 3: invalid type"),
        ("\n[", "in main.toml, line 2: "),
        ("include = [\n'none']", "in main.toml, line 2: there is no preset \"none\""),
        (
            "include = [\n'd/n.toml']",
            "in main.toml, line 2: cannot read d/n.toml: entity not found",
        ),
        (
            "include = ['d/wrong.toml']",
            "in d/wrong.toml, line 3: in the rule \"*\": write 'public'",
        ),
        ("include = ['../main.toml']", "in main.toml, line 1: ../main.toml includes itself"),
        ("include = ['d/c.toml']", "in d/c.toml, line 2: d/../main.toml includes itself"),
    ] {
        let files = [
            ("main.toml", text),
            ("d/wrong.toml", "\n\nallow = ['*']"),
            ("d/c.toml", "# back\ninclude = ['../main.toml']"),
        ];
        let error = error(&files);
        assert!(error.starts_with(says), "{text}: {error}");
    }
    let missing = read(&Source::of("nothing"), |_| panic!("it is no file")).unwrap_err();
    assert_eq!(missing.to_string(), "there is no preset \"nothing\"; write a file as ./nothing");
}

#[test]
fn a_policy_is_limited() {
    let chain: Vec<(String, String)> = (0..=MAX_FILES)
        .map(|at| (format!("f{at}.toml"), format!("include = ['f{}.toml']", at + 1)))
        .collect();
    let mut files: Vec<_> =
        chain.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    files.push(("main.toml", "include = ['f0.toml']"));
    assert!(matches!(policy(&files), Err(PolicyError::TooManyFiles)));
    let text = format!("allow = [{}]", "'public',".repeat(MAX_RULES + 1));
    assert!(matches!(policy(&[("main.toml", &text)]), Err(PolicyError::TooManyRules)));
    let text = "#".repeat(usize::try_from(MAX_SIZE).unwrap() + 1);
    let Err(PolicyError::Read { cause, .. }) = policy(&[("main.toml", &text)]) else { panic!() };
    assert_eq!(cause.kind(), io::ErrorKind::FileTooLarge);
}

#[test]
fn a_policy_is_read_from_the_files_of_this_host() {
    let directory = std::env::temp_dir().join(format!("egress-{}", std::process::id()));
    std::fs::create_dir_all(directory.join("d")).unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.join(name), text).unwrap();
    write("main.toml", "include = ['pip', 'd/../more.toml', './more.toml']");
    write("more.toml", "deny = ['a.example']");
    write("circle.toml", "include = ['d/../circle.toml']");
    let load = |name: &str| load(&Source::of_path(&directory.join(name)));
    assert_eq!(texts(load("main.toml").unwrap().deny()), ["a.example"]);
    assert!(matches!(load("circle.toml"), Err(PolicyError::Circle { .. })));
    assert!(matches!(load("none.toml"), Err(PolicyError::Read { .. })));
    // A directory is no file.
    assert!(matches!(load("d"), Err(PolicyError::Read { .. })));
    std::fs::remove_dir_all(directory).unwrap();
}

proptest! {
    /// Files that include each other in any way: each rule of a file that can be reached is there
    /// once, or a file includes itself.
    #[test]
    fn each_file_counts_once(
        edges in prop::collection::btree_set((0_usize..6, 0_usize..6), 0..12),
    ) {
        let name = |at: usize| if at == 0 { "main.toml".to_owned() } else { format!("f{at}.toml") };
        let files: Vec<(String, String)> = (0..6).map(|at| {
            let included = edges.iter().filter(|(from, _)| *from == at);
            let included: Vec<_> = included.map(|(_, to)| format!("'{}'", name(*to))).collect();
            (name(at), format!("include = [{}]\nallow = ['r{at}.example']", included.join(",")))
        }).collect();
        let files: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        // What can be reached in 1 or more steps.
        let reach = |from: usize| {
            let mut reached = BTreeSet::new();
            let mut waiting = vec![from];
            while let Some(at) = waiting.pop() {
                for (_, to) in edges.iter().filter(|(from, _)| *from == at) {
                    if reached.insert(*to) {
                        waiting.push(*to);
                    }
                }
            }
            reached
        };
        let mut reached = reach(0);
        reached.insert(0);
        let is_circle = reached.iter().any(|at| reach(*at).contains(at));
        match policy(&files) {
            Ok(policy) => {
                prop_assert!(!is_circle);
                let mut rules = texts(policy.allow());
                rules.sort();
                let expected: Vec<_> = reached.iter().map(|at| format!("r{at}.example")).collect();
                prop_assert_eq!(rules, expected);
            }
            Err(error) => {
                let says_so = matches!(error, PolicyError::Circle { .. });
                prop_assert!(is_circle && says_so);
            }
        }
    }

    #[test]
    fn no_text_is_a_panic(text in "(include|allow|deny| |=|\\[|\\]|'|\"|,|\n|#|pip|a.example|\\.){0,24}") {
        let _ = policy(&[("main.toml", &text)]);
    }
}
