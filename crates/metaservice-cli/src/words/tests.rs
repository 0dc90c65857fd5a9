use super::*;
use crate::commands::run::Run;

const PATH: &str = "/home/user/config.toml";

fn parsed(text: &str, words: &[&str]) -> Result<Run, Unparsed> {
    let words = ["metaservice", "run"].into_iter().chain(words.iter().copied());
    let words: Vec<OsString> = words.map(OsString::from).collect();
    match parse_with(&words, || Config::parse(PATH.into(), text).map(Some))?.command {
        Command::Run(run) => Ok(*run),
        other => panic!("{other:?}"),
    }
}

/// The error that names the file.
#[track_caller]
fn refused(text: &str, words: &[&str]) -> String {
    match parsed(text, words) {
        Err(Unparsed::Config(error, _)) => format!("{error:#}"),
        other => panic!("{other:?}"),
    }
}

const PROFILES: &str = r#"
[profile.default]
memory = "3G"

[profile.ci]
memory = "2G"
cpus = 2
tty = true
env = ["A=profile", "B=profile"]
image = "debian"
"#;

#[test]
fn the_options_of_a_profile_come_before_those_of_the_user() {
    let run = parsed(PROFILES, &["--profile", "ci", "-e", "A=user", "--cpus", "4", "--", "x"]);
    let run = run.unwrap();
    assert_eq!((run.vm.hardware.memory.as_str(), run.vm.hardware.cpus), ("2G", 4));
    assert_eq!(run.job.env, ["A=profile", "B=profile", "A=user"]);
    assert!(run.tty && run.applied.is_some());
    // What excludes an option of the profile takes its place.
    let run = parsed(PROFILES, &["--profile=ci", "--rootfs", "/", "--", "x"]).unwrap();
    assert_eq!((run.vm.image, run.vm.rootfs), (None, Some("/".into())));
}

#[test]
fn one_profile_is_used_and_the_default_one_needs_no_name() {
    let memory = |text, words: &[&str]| parsed(text, words).unwrap().vm.hardware.memory;
    assert_eq!(memory(PROFILES, &["--", "x"]), "3G");
    assert_eq!(memory(PROFILES, &["--memory", "1G", "--", "x"]), "1G");
    assert_eq!(memory("[profile.ci]\nmemory = \"2G\"", &["--", "x"]), "1G");
    assert_eq!(memory("[profile.default]\ncpus = 2\n[profile.a]", &["--profile", "a", "x"]), "1G");
    // A word of the command is not an option of `run`.
    assert_eq!(memory(PROFILES, &["--", "x", "--profile", "ci"]), "3G");
    // A description in a file is complete.
    assert!(parsed(PROFILES, &["--spec", "job.json"]).unwrap().applied.is_none());
    assert!(matches!(
        parsed(PROFILES, &["--spec", "job.json", "--profile", "ci"]),
        Err(Unparsed::Words(_))
    ));
}

#[test]
fn other_verbs_do_not_read_the_file() {
    let words = ["metaservice", "--json", "ps", "-q"].map(OsString::from);
    assert!(parse_with(&words, || panic!("it was read")).is_ok());
    let words = ["metaservice", "--json", "run", "--", "x"].map(OsString::from);
    let unreadable = parse_with(&words, || Err(Error::msg("unreadable")));
    assert!(matches!(unreadable, Err(Unparsed::Config(_, output)) if output.json));
}

#[test]
fn a_missing_profile_is_named_with_those_that_exist() {
    let error = refused(PROFILES, &["--profile", "cii", "--", "x"]);
    assert!(error.contains("no profile \"cii\" in /home/user/config.toml"), "{error}");
    assert!(error.ends_with("there are ci, default"), "{error}");
    assert!(refused("", &["--profile", "ci", "--", "x"]).contains("has none"));
}

#[test]
fn a_wrong_value_is_refused_by_file_and_line() {
    for (entry, says) in [
        ("cpus = \"two\"", "invalid value 'two' for '--cpus <N>': write a number of processors"),
        ("net = \"host\"", "[possible values: none, open]"),
        ("memroy = \"2G\"", "there is no key \"memroy\": did you mean \"memory\"?"),
        ("tty = \"yes\"", "\"tty\" is true or false"),
        ("initrd = \"/srv/i\"", "--kernel <FILE>"),
    ] {
        let text = format!("[profile.ci]\nkaslr = true\n{entry}\n");
        let error = refused(&text, &["--profile", "ci", "--", "x"]);
        assert!(error.contains(says) && error.lines().count() == 1, "{error}");
        if !entry.starts_with("initrd") {
            let place = "/home/user/config.toml:3: in profile ci: ";
            assert!(error.starts_with(place), "{error}");
        }
    }
    assert!(refused("x = 1", &["--", "x"]).starts_with("/home/user/config.toml:1: "));
}

#[test]
fn an_error_of_the_user_is_no_error_of_the_profile() {
    for words in [&["--memroy", "1G", "--", "x"][..], &["--cpus", "two", "x"], &[]] {
        assert!(matches!(parsed(PROFILES, words), Err(Unparsed::Words(_))), "{words:?}");
    }
    assert!(matches!(parsed(PROFILES, &["--help"]), Err(Unparsed::Words(_))));
}

#[test]
fn an_error_that_is_found_later_has_the_line_too() {
    let run = parsed(PROFILES, &["--profile", "ci", "-e", "C=1", "--", "x"]).unwrap();
    let explain = |text: &'static str| {
        let error = run.applied.as_ref().unwrap().explain(Error::msg(text));
        format!("{error:#}")
    };
    assert_eq!(
        explain("in --memory: 1 MiB"),
        "/home/user/config.toml:6: in profile ci: in --memory: 1 MiB"
    );
    // The user gives --env too: either can be wrong.
    let both = explain("in --env: a variable needs a name");
    assert!(both.starts_with("in --env: a variable needs a name"), "{both}");
    assert!(both.contains("--env is /home/user/config.toml:9"), "{both}");
    for other in ["in --timeout: soon", "no option is named", "the guest wrote\n --memory"] {
        assert_eq!(explain(other), other);
    }
}

#[test]
fn each_profile_is_checked() {
    let check = |text| Config::parse(PATH.into(), text).unwrap().check(&run_command());
    check(PROFILES).unwrap();
    let error = format!("{:#}", check("[profile.a]\n[profile.b]\ncpus = \"x\"").unwrap_err());
    assert!(error.starts_with("/home/user/config.toml:3: in profile b: "), "{error}");
}

#[test]
fn no_option_of_all_verbs_has_a_value() {
    // The verb is the first word that is not an option.
    let cli = Cli::command();
    assert!(cli.get_arguments().all(|arg| !arg.get_action().takes_values()));
}

#[test]
fn the_examples_in_the_documentation_are_right() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/config.md");
    let page = std::fs::read_to_string(page).unwrap();
    let examples: Vec<&str> =
        page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(!examples.is_empty());
    let in_help = config::HELP.lines().filter(|line| line.starts_with("  ")).map(str::trim);
    let in_help = in_help.filter(|line| !line.starts_with("metaservice")).collect::<Vec<_>>();
    for text in examples.into_iter().chain([in_help.join("\n").as_str()]) {
        let config = Config::parse(PATH.into(), text).unwrap();
        config.check(&run_command()).unwrap();
        assert!(config.names().count() > 0, "{text}");
    }
}
