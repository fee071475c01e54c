//! `directory "org/people.csv"`: people as rows of a CSV or JSON file, with every row's mistakes at the row's line.

use std::collections::BTreeMap;

use crate::{
    code,
    context::Context,
    diagnostic::Draft,
    model::{Department, Overrides, Team},
    read::{
        org::{OrgPart, PersonPart, empty_slug, person_id},
        taken,
    },
    reader::{Arguments, Node, Shape},
    slug::slug,
    source::RelPath,
    text::{Place, count},
    words::{self, did_you_mean},
};

/// The columns of a row, in the order of [`Row`].
pub(crate) const COLUMNS: [&str; 7] = ["id", "name", "title", "level", "department", "team", "reports_to"];

const SYNTAX_HELP: &str = "mend this place; the rows before it were read, those after it were not";

/// One row: the value of each of [`COLUMNS`], empty when not given.
type Row<'r> = [&'r str; 7];

/// Adds the rows of one `directory` node.
pub(crate) fn read(ctx: &mut Context<'_>, node: Node<'_>, org: &mut OrgPart) {
    ctx.expect(node, &Shape::of(Arguments::These(&["file"])));
    let given = ctx.argument(node, 0).and_then(|given| Some((ctx.path(given)?, given.1)));
    let Some((path, place)) = given else {
        ctx.gaps.rows = true;
        return;
    };
    let Some(file) = ctx.file(&path, Some(place)) else {
        ctx.gaps.rows = true;
        return;
    };
    let Some(text) = file.text() else {
        ctx.gaps.rows = true;
        ctx.report(
            Draft::error(code::FILE_NOT_TEXT, format!("{path} is not UTF-8 text"))
                .at(place, "named here")
                .help("save it as UTF-8"),
        );
        return;
    };
    let number = ctx.files.add(path.clone(), text);
    match extension(&path) {
        "csv" => csv(ctx, number, text, org),
        "json" => json(ctx, number, text, org),
        _ => {
            ctx.gaps.rows = true;
            ctx.report(
                Draft::error(code::FILE_WRONG_KIND, format!("{path} is neither .csv nor .json"))
                    .at(place, "named here")
                    .help("a directory is a CSV file with a header line, or a JSON array of objects"),
            );
        }
    }
}

fn extension(path: &RelPath) -> &str {
    path.as_str().rsplit_once('.').map_or("", |(_, extension)| extension)
}

/// Reads a CSV text; the header may name the columns in any order.
fn csv(ctx: &mut Context<'_>, file: u16, text: &str, org: &mut OrgPart) {
    let mut reader = ::csv::ReaderBuilder::new().flexible(true).has_headers(false).from_reader(text.as_bytes());
    let mut record = ::csv::StringRecord::new();
    let mut header: Option<Vec<Option<usize>>> = None;
    loop {
        let start = usize::try_from(reader.position().byte()).unwrap_or(usize::MAX);
        match reader.read_record(&mut record) {
            Ok(false) => break,
            Ok(true) => {}
            Err(error) => {
                let place = line_at(file, text, start);
                ctx.report(
                    Draft::error(code::DIRECTORY_SYNTAX, format!("this is not CSV: {error}"))
                        .at(place, "from here")
                        .help(SYNTAX_HELP),
                );
                ctx.gaps.rows = true;
                break;
            }
        }
        let start = record.position().map_or(start, |at| usize::try_from(at.byte()).unwrap_or(usize::MAX));
        let place = line_at(file, text, start);
        let Some(columns) = &header else {
            header = columns_of(ctx, &record, place);
            if header.is_none() {
                ctx.gaps.rows = true;
                break;
            }
            continue;
        };
        if record.len() != columns.len() {
            uneven(ctx, record.len(), columns.len(), place);
            continue;
        }
        let mut row: Row<'_> = [""; 7];
        for (column, value) in columns.iter().zip(&record) {
            if let Some(column) = column {
                row[*column] = value.trim();
            }
        }
        add(ctx, row, place, org);
    }
    if header.is_none() && text.trim().is_empty() {
        ctx.report(
            Draft::error(code::DIRECTORY_COLUMN, "the directory has no header line")
                .at(line_at(file, text, 0), "the file is empty")
                .help(format!("start it with {}", COLUMNS.join(","))),
        );
    }
}

fn uneven(ctx: &mut Context<'_>, fields: usize, columns: usize, place: Place) {
    ctx.gaps.rows = true;
    ctx.report(
        Draft::error(code::DIRECTORY_ROW, format!("this row has {fields} fields, and the header has {columns}"))
            .at(place, "this row")
            .help("give every field, empty if need be; put fields that hold a comma in quotes"),
    );
}

/// The known column of each field of the header line.
fn columns_of(ctx: &mut Context<'_>, header: &::csv::StringRecord, place: Place) -> Option<Vec<Option<usize>>> {
    let mut columns = Vec::with_capacity(header.len());
    for name in header {
        let name = name.trim().trim_start_matches('\u{feff}');
        let column = COLUMNS.iter().position(|known| *known == name);
        let twice = column.is_some() && columns.contains(&column);
        if column.is_none() || twice {
            unknown_column(ctx, name, place, twice);
        }
        columns.push(column);
    }
    if columns.contains(&Some(0)) {
        return Some(columns);
    }
    ctx.report(
        Draft::error(code::DIRECTORY_COLUMN, "the directory has no column `id`")
            .at(place, "the header line")
            .help(format!("the columns are {}; id is needed, the others may be left out", words::list(&COLUMNS))),
    );
    None
}

fn unknown_column(ctx: &mut Context<'_>, name: &str, place: Place, twice: bool) {
    let message = if twice {
        format!("the directory has two columns `{name}`")
    } else {
        format!("the directory has an unknown column `{}`", name.escape_debug())
    };
    let help = did_you_mean(name, COLUMNS).unwrap_or_else(|| format!("the columns are {}", words::list(&COLUMNS)));
    ctx.report(Draft::error(code::DIRECTORY_COLUMN, message).at(place, "here").help(help));
}

/// From an offset to the end of its line.
fn line_at(file: u16, text: &str, start: usize) -> Place {
    let rest = text.get(start.min(text.len())..).unwrap_or_default();
    let skipped = rest.len() - rest.trim_start_matches(['\r', '\n']).len();
    let line = rest[skipped..].lines().next().unwrap_or_default();
    Place { file, start: count(start.min(text.len()) + skipped), len: count(line.trim_end().len()) }
}

/// Reads a JSON array of objects, one value at a time so that every row knows its line.
fn json(ctx: &mut Context<'_>, file: u16, text: &str, org: &mut OrgPart) {
    let mut at = skip(text, 0, "");
    if !text[at..].starts_with('[') {
        return broken(ctx, line_at(file, text, at), "a JSON directory is an array of objects: [{\"id\": …}, …]");
    }
    at = skip(text, at + 1, "");
    while at < text.len() && !text[at..].starts_with(']') {
        let mut values =
            serde_json::Deserializer::from_str(&text[at..]).into_iter::<BTreeMap<String, serde_json::Value>>();
        let row = match values.next() {
            Some(Ok(row)) => row,
            Some(Err(error)) => {
                let place = line_at(file, text, at);
                return broken(ctx, place, &format!("this row is not a JSON object: {}", cause(&error)));
            }
            None => break,
        };
        let end = at + values.byte_offset();
        // Only this row is searched for its first line's end: a whole directory may stand on one line.
        let place = line_at(file, &text[..end], at);
        object(ctx, &row, place, org);
        let next = skip(text, end, "");
        at = skip(text, end, ",");
        if at == next && !text[at..].starts_with(']') {
            return broken(ctx, line_at(file, text, at), "a comma or the end of the array is expected here");
        }
    }
    if at >= text.len() || !text[skip(text, at + 1, "")..].is_empty() {
        broken(ctx, line_at(file, text, at.min(text.len())), "the array does not end where the file ends");
    }
}

/// What serde_json says, without its position: that counts from the row, not from the file.
fn cause(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or_default().to_owned()
}

fn skip(text: &str, at: usize, also: &str) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    text.len() - rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '\u{feff}' || also.contains(c)).len()
}

fn broken(ctx: &mut Context<'_>, place: Place, message: &str) {
    ctx.gaps.rows = true;
    ctx.report(Draft::error(code::DIRECTORY_SYNTAX, message).at(place, "here").help(SYNTAX_HELP));
}

fn object(ctx: &mut Context<'_>, fields: &BTreeMap<String, serde_json::Value>, place: Place, org: &mut OrgPart) {
    let mut row: Row<'_> = [""; 7];
    let mut sound = true;
    for (name, value) in fields {
        let Some(column) = COLUMNS.iter().position(|known| known == name) else {
            unknown_column(ctx, name, place, false);
            continue;
        };
        match value {
            serde_json::Value::String(text) => row[column] = text.trim(),
            serde_json::Value::Null => {}
            _ => {
                sound = false;
                ctx.report(
                    Draft::error(code::DIRECTORY_ROW, format!("`{name}` of this row is not a text"))
                        .at(place, "this row")
                        .help("put it in quotes, or leave it out"),
                );
            }
        }
    }
    if sound {
        add(ctx, row, place, org);
    } else {
        ctx.gaps.rows = true;
    }
}

/// Adds one row: a person, and the department and team it introduces.
fn add(ctx: &mut Context<'_>, row: Row<'_>, place: Place, org: &mut OrgPart) {
    let [id, name, title, level, department, team, reports_to] = row;
    if id.is_empty() {
        ctx.report(
            Draft::error(code::DIRECTORY_ROW, "this row has no id")
                .at(place, "this row")
                .help("every person needs an id, such as maria.silva"),
        );
        return;
    }
    if !team.is_empty() && department.is_empty() {
        ctx.report(
            Draft::error(code::DIRECTORY_ROW, format!("`{id}` has a team and no department"))
                .at(place, "this row")
                .help("name the department that the team belongs to"),
        );
    } else {
        introduce(ctx, department, team, place, org);
    }
    if !person_id(ctx, (id, place)) {
        ctx.gaps.ids.insert(id.to_owned());
        return;
    }
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let known = some(level).and_then(|level| ctx.word_of("level", (&level, place), &words::LEVELS));
    let part = PersonPart {
        place,
        name: some(name),
        title: some(title),
        level: known,
        refused: !level.is_empty() && known.is_none(),
        department: some(department),
        team: some(team),
        reports_to: some(reports_to).map(|manager| (manager, place)),
        refused_manager: false,
        human: false,
        overrides: Overrides::default(),
    };
    if let Some(first) = org.rows.get(id) {
        let first = first.place;
        taken(ctx, "rows", id, place, Some(first));
    } else {
        org.rows.insert(id.to_owned(), part);
    }
}

fn introduce(ctx: &mut Context<'_>, department: &str, team: &str, place: Place, org: &mut OrgPart) {
    const HELP: &str = "declare it in fleet.kdl with alias=\"…\"";
    if department.is_empty() {
        return;
    }
    if !org.departments.contains_key(department) {
        let alias = slug(department);
        if alias.is_empty() {
            empty_slug(ctx, department, place, HELP);
        }
        let new = Department {
            name: department.to_owned(),
            alias,
            defaults: Overrides::default(),
            teams: BTreeMap::new(),
            origin: ctx.origin(place),
        };
        org.departments.insert(department.to_owned(), new);
    }
    let origin = ctx.origin(place);
    let Some(teams) = org.departments.get_mut(department).map(|known| &mut known.teams) else { return };
    if team.is_empty() || teams.contains_key(team) {
        return;
    }
    let alias = slug(team);
    let nothing_left = alias.is_empty();
    teams.insert(team.to_owned(), Team { name: team.to_owned(), alias, origin });
    if nothing_left {
        empty_slug(ctx, team, place, HELP);
    }
}
