//! The commands on pages of the documentation are parsed by the real parser.

use super::*;

/// The commands of this tool on a page: in code between backquotes, and in indented lines.
fn commands(page: &str) -> Vec<String> {
    let indented = page.lines().filter_map(|line| line.strip_prefix("    "));
    let in_text = page.lines().filter(|line| !line.starts_with("    "));
    let spans = in_text.flat_map(|line| line.split('`').skip(1).step_by(2));
    let all = indented.chain(spans);
    let command = |text: &str| text.find("metaservice ").map(|start| text[start..].to_owned());
    all.filter(|text| !text.contains("://")).filter_map(command).collect()
}

/// The words of a command in a shell, up to its end or the next command.
fn words(command: &str) -> Vec<OsString> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in command.chars() {
        match (quote, c) {
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some(open), c) if c == open => quote = None,
            (None, ' ') => words.extend(word.take()),
            (None, '|' | ';' | '&' | '>') => break,
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words.into_iter().map(OsString::from).collect()
}

#[track_caller]
fn check(page: &str, least: usize) {
    let path = format!("{}/../../docs/{page}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap().replace(" \\\n", " ");
    let commands = commands(&text);
    assert!(commands.len() >= least, "{commands:?}");
    for command in commands {
        let words = words(&command);
        if let Err(Unparsed::Words(error)) = parse_with(&words, || Ok(None)) {
            assert!(!error.use_stderr(), "docs/{page} has `{command}`: {error}");
        }
    }
}

#[test]
fn each_command_for_docker_users_is_one_of_this_tool() {
    check("how-to/from-docker.md", 40);
}

#[test]
fn each_command_on_the_page_of_the_network_is_one_of_this_tool() {
    check("how-to/network.md", 12);
}

#[test]
fn each_command_on_the_page_of_the_configuration_is_one_of_this_tool() {
    check("reference/config.md", 2);
}

#[test]
fn the_words_are_those_of_a_shell() {
    let of =
        |text| words(text).into_iter().map(|word| word.into_string().unwrap()).collect::<Vec<_>>();
    assert_eq!(of("a -c 'b | c' \"d e\" '' | f"), ["a", "-c", "b | c", "d e", ""]);
    assert_eq!(of("a;b"), ["a"]);
    assert_eq!(
        commands("x `y` `metaservice ps`\n    c | metaservice run"),
        ["metaservice run", "metaservice ps"]
    );
}
