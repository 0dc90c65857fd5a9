//! The argument of `ps --format`: the part of docker's templates that lists need.
//!
//! A template is text with fields, `{{.Name}}`, and the escapes `\t` and `\n`. The rest of docker's
//! language (functions, conditions, loops) is refused by name: `--format json` and a program such
//! as `jq` do that.

use std::str::FromStr;

/// The form of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Format {
    /// A JSON object for each job.
    Json,
    /// A line for each job.
    Lines(Template),
    /// A table with headings, with a column for each template.
    Table(Vec<Template>),
}

/// A text with fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Field(Field),
}

/// A property of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    Name,
    State,
    Age,
    Image,
    Cpu,
    Memory,
    Accel,
    Pid,
    Command,
}

/// The fields in the order of the columns, with the names in docker's templates.
const FIELDS: [(Field, &str, &[&str]); 9] = [
    (Field::Name, "Name", &["Names", "ID"]),
    (Field::State, "State", &["Status"]),
    (Field::Age, "Age", &["RunningFor"]),
    (Field::Image, "Image", &[]),
    (Field::Cpu, "CPU", &[]),
    (Field::Memory, "Memory", &[]),
    (Field::Accel, "Accel", &[]),
    (Field::Pid, "PID", &[]),
    (Field::Command, "Command", &[]),
];

impl Field {
    /// The fields in the order of the columns.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        FIELDS.into_iter().map(|(field, ..)| field)
    }

    /// The heading of its column.
    pub(crate) fn heading(self) -> String {
        let name = FIELDS.iter().find(|(field, ..)| *field == self).map_or("", |(_, name, _)| name);
        name.to_ascii_uppercase()
    }

    fn parse(word: &str) -> Option<Self> {
        let is = |name: &str| name.eq_ignore_ascii_case(word);
        let found =
            FIELDS.iter().find(|(_, name, others)| is(name) || others.iter().any(|o| is(o)));
        found.map(|(field, ..)| *field)
    }
}

impl Template {
    /// The text for one job.
    pub(crate) fn fill(&self, value: impl Fn(Field) -> String) -> String {
        let piece = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Field(field) => value(*field),
        };
        self.0.iter().map(piece).collect()
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (action, after) = after
                .split_once("}}")
                .ok_or_else(|| format!("{{{{{after} has no end: write }}}}"))?;
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            pieces.push(Piece::Field(field(action)?));
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Self(pieces))
    }
}

fn field(action: &str) -> Result<Field, String> {
    let known = action.trim().strip_prefix('.').and_then(Field::parse);
    known.ok_or_else(|| {
        let names = FIELDS.map(|(_, name, _)| format!(".{name}"));
        format!(
            "{{{{{action}}}}} is not a field: write {}; for JSON, --format json",
            names.join(", ")
        )
    })
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() {
            return Err("write a template, such as {{.Name}}, or json, or table".to_owned());
        }
        if text == "json" {
            return Ok(Self::Json);
        }
        let unescaped = text.replace("\\t", "\t").replace("\\n", "\n");
        match unescaped.strip_prefix("table") {
            Some("") => Ok(Self::usual()),
            Some(columns) if columns.starts_with([' ', '\t']) => {
                let columns = columns.trim().split('\t').map(Template::parse);
                columns.collect::<Result<_, _>>().map(Self::Table)
            }
            _ => Template::parse(&unescaped).map(Self::Lines),
        }
    }
}

impl Format {
    /// The names alone.
    pub(crate) fn names() -> Self {
        Self::Lines(Template(vec![Piece::Field(Field::Name)]))
    }

    /// The table of all fields.
    pub(crate) fn usual() -> Self {
        Self::Table(Field::all().map(|field| Template(vec![Piece::Field(field)])).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(template: &str) -> String {
        let value = |field| match field {
            Field::Name => "build".to_owned(),
            field => format!("<{}>", field.heading()),
        };
        match template.parse().unwrap() {
            Format::Lines(template) => template.fill(value),
            Format::Table(columns) => {
                columns.iter().map(|column| column.fill(value)).collect::<Vec<_>>().join("|")
            }
            Format::Json => "json".to_owned(),
        }
    }

    #[test]
    fn what_a_docker_user_types_is_understood() {
        assert_eq!(filled("{{.Name}}"), "build");
        assert_eq!(filled(r"{{.Names}}\t{{ .Status }}"), "build\t<STATE>");
        assert_eq!(filled("{{.ID}}: {{.cpu}} of {{.Image}}!"), "build: <CPU> of <IMAGE>!");
        assert_eq!(filled("json"), "json");
        assert_eq!(filled(r"table {{.Name}}\t{{.RunningFor}}"), "build|<AGE>");
        assert_eq!(filled("tables of {{.Name}}"), "tables of build");
        assert_eq!("table".parse(), Ok(Format::usual()));
        for (field, name, _) in FIELDS {
            assert_eq!(Field::parse(name), Some(field));
        }
    }

    #[test]
    fn what_is_no_field_is_refused_with_the_fields() {
        for wrong in [
            "{{.Size}}",
            "{{json .}}",
            "{{Name}}",
            "{{}}",
            "{{range .}}",
            "table {{.X}}",
            "{{.Name}} {{.",
        ] {
            let error = wrong.parse::<Format>().unwrap_err();
            assert!(error.contains("write ") && error.lines().count() == 1, "{wrong}: {error}");
        }
        assert!("{{json .}}".parse::<Format>().unwrap_err().contains("--format json"));
        assert!(" ".parse::<Format>().is_err());
    }
}
