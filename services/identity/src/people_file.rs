//! A CSV file of people: which column is what, and a row as a user.

use std::collections::BTreeMap;

use muster_proto::identity::v1::{MultiValue, Name, User};
use muster_scim::caseless;

use crate::user::primary_email;

/// The largest file, in bytes.
pub const LARGEST: usize = 10 * 1024 * 1024;
/// The most people in a file.
pub const MOST_ROWS: u64 = 50_000;
/// The longest text in a cell, as in SCIM.
const LONGEST_TEXT: usize = 1_024;

/// Something that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// From 1.
    pub line: u64,
    /// The character of the line, from 1; 0 for the line as a whole.
    pub column: u64,
    /// What came, what was expected, what to do.
    pub description: String,
}

impl Problem {
    /// About a line as a whole.
    #[must_use]
    pub fn of_line(line: u64, description: impl Into<String>) -> Self {
        Self { line, column: 0, description: description.into() }
    }

    fn at(line: u64, column: u64, description: impl Into<String>) -> Self {
        Self { line, column, description: description.into() }
    }
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Column {
    /// `user name`.
    UserName,
    /// The primary e-mail address.
    Email,
    /// The given name.
    GivenName,
    /// The family name.
    FamilyName,
    /// The display name.
    DisplayName,
    /// The country code.
    Country,
    /// The locale.
    Locale,
    /// Whether the person is active.
    Active,
    /// The approvers' addresses.
    Approvers,
    /// `externalId`.
    ExternalId,
    /// A custom field, from 0.
    Custom(usize),
}

/// A file whose form is right.
#[derive(Debug)]
pub struct PeopleFile<'f> {
    text: &'f str,
    delimiter: u8,
    /// What each column holds; none for one that is not read.
    columns: Vec<Option<Column>>,
    /// The header, as it stands in the file.
    header: Vec<String>,
    /// How many people it has.
    pub row_count: u64,
}

/// A row.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Where it begins.
    pub line: u64,
    cells: BTreeMap<Column, String>,
}

impl<'f> PeopleFile<'f> {
    /// Reads the form of a file: its encoding, its quotes, its header. `fields` are what the
    /// organisation calls its custom fields.
    pub fn open(bytes: &'f [u8], fields: &[String; 3]) -> Result<Self, Problem> {
        let text = decode(bytes)?;
        let delimiter = delimiter(text);
        let row_count = check_quotes(text, delimiter)?;
        let mut reader = reader(text, delimiter);
        let header = reader.headers().map_err(|error| broken(&error))?;
        let header: Vec<String> = header.iter().map(|name| name.trim().to_owned()).collect();
        let columns: Vec<Option<Column>> = header.iter().map(|name| column(name, fields)).collect();
        for (at, one) in columns.iter().enumerate() {
            let Some(one) = one else { continue };
            if let Some(first) = columns[..at].iter().position(|other| *other == Some(*one)) {
                let what = format!(
                    "The columns {:?} and {:?} hold the same. Remove one of them.",
                    header[first], header[at]
                );
                return Err(Problem::at(1, column_of(text, delimiter, at), what));
            }
        }
        let found = |wanted: Column| columns.contains(&Some(wanted));
        if !found(Column::UserName) && !found(Column::Email) {
            let what = "There is no column for the e-mail address or the user name. The first line \
                        names the columns, such as: email,first name,last name,country";
            return Err(Problem::at(1, 1, what));
        }
        if row_count > MOST_ROWS {
            let what = format!(
                "The file has {row_count} people; at most {MOST_ROWS} can be imported at once. \
                 Split it."
            );
            return Err(Problem::of_line(1, what));
        }
        Ok(Self { text, delimiter, columns, header, row_count })
    }

    /// The columns that are read, or those that are not, as the file names them.
    #[must_use]
    pub fn columns(&self, read: bool) -> Vec<String> {
        let with = self.header.iter().zip(&self.columns);
        let wanted = with.filter(|(name, column)| column.is_some() == read && !name.is_empty());
        wanted.map(|(name, _)| name.clone()).collect()
    }

    /// The rows, one after the other; empty lines are left out.
    pub fn entries(&self) -> impl Iterator<Item = Result<Entry, Problem>> + Send + use<'f> {
        let columns = self.columns.clone();
        let width = columns.len();
        reader(self.text, self.delimiter).into_records().filter_map(move |record| {
            let record = match record {
                Ok(record) => record,
                Err(error) => return Some(Err(broken(&error))),
            };
            if record.iter().all(|cell| cell.trim().is_empty()) {
                return None;
            }
            let line = record.position().map_or(0, csv::Position::line);
            if record.len() > width {
                let what = format!(
                    "The line has {} cells, the first line {width}. Put quotes around a cell that \
                     holds a comma or semicolon.",
                    record.len()
                );
                return Some(Err(Problem::of_line(line, what)));
            }
            let cells = record.iter().zip(&columns).filter_map(|(cell, column)| {
                let cell = unescaped(cell.trim()).to_owned();
                column.map(|column| (column, cell))
            });
            Some(Ok(Entry { line, cells: cells.collect() }))
        })
    }
}

impl Entry {
    fn cell(&self, column: Column) -> Option<&str> {
        self.cells.get(&column).map(String::as_str)
    }

    fn filled(&self, column: Column) -> Option<&str> {
        self.cell(column).filter(|cell| !cell.is_empty())
    }

    /// What the person is found by: the key of the `user name`, else of the e-mail address.
    #[must_use]
    pub fn keys(&self) -> (Option<String>, Option<String>) {
        let key = |column| self.filled(column).map(caseless::key).filter(|key| !key.is_empty());
        (key(Column::UserName), key(Column::Email))
    }

    /// A user with what the row says in place of what was.
    pub fn apply(&self, mut user: User) -> Result<User, String> {
        for (column, cell) in &self.cells {
            if cell.chars().count() > LONGEST_TEXT && *column != Column::Approvers {
                return Err(format!("A cell is longer than {LONGEST_TEXT} characters."));
            }
            let lines = *column == Column::Approvers;
            let is_bad = |c: char| c < ' ' && c != '\t' && !(lines && matches!(c, '\r' | '\n'));
            if cell.chars().any(is_bad) {
                return Err("A cell holds a line break or a control character. Write it on one \
                            line."
                    .to_owned());
            }
        }
        let text = |column, old: Option<String>| match self.cell(column) {
            Some(cell) => Some(cell.to_owned()).filter(|cell| !cell.is_empty()),
            None => old,
        };
        let name = user.name.take().unwrap_or_default();
        let (given, family) = (name.given_name.clone(), name.family_name.clone());
        let given_name = text(Column::GivenName, name.given_name);
        let family_name = text(Column::FamilyName, name.family_name);
        // A whole name that was made of the old parts would be wrong now.
        let same = given == given_name && family == family_name;
        let formatted = name.formatted.filter(|_| same);
        let name = Name { given_name, family_name, formatted, ..name };
        user.name = (name != Name::default()).then_some(name);
        user.display_name = text(Column::DisplayName, user.display_name);
        user.country_code = text(Column::Country, user.country_code);
        user.locale = text(Column::Locale, user.locale);
        user.external_id = text(Column::ExternalId, user.external_id);
        user.custom_field_1 = text(Column::Custom(0), user.custom_field_1);
        user.custom_field_2 = text(Column::Custom(1), user.custom_field_2);
        user.custom_field_3 = text(Column::Custom(2), user.custom_field_3);
        if let Some(user_name) = self.filled(Column::UserName) {
            user.user_name = Some(user_name.to_owned());
        }
        if let Some(email) = self.filled(Column::Email) {
            set_primary(&mut user.emails, email);
        }
        if let Some(active) = self.filled(Column::Active) {
            user.active = Some(truth(active).ok_or_else(|| {
                let sent: String = active.chars().take(40).collect();
                format!("active is {sent:?}; expected yes or no.")
            })?);
        }
        if let Some(approvers) = self.cell(Column::Approvers) {
            let addresses = approvers.split([',', ';', '\n', '\r']).map(str::trim);
            user.declared_approvers =
                addresses.filter(|address| !address.is_empty()).map(str::to_owned).collect();
        }
        Ok(user)
    }
}

fn set_primary(emails: &mut Vec<MultiValue>, email: &str) {
    let primary = primary_email(emails).map(str::to_owned);
    let at = primary.and_then(|p| emails.iter().position(|one| one.value.as_ref() == Some(&p)));
    match at {
        Some(at) => emails[at].value = Some(email.to_owned()),
        None => emails.push(MultiValue {
            value: Some(email.to_owned()),
            r#type: Some("work".to_owned()),
            ..MultiValue::default()
        }),
    }
}

fn truth(text: &str) -> Option<bool> {
    match caseless::key(text).as_str() {
        "yes" | "true" | "1" | "y" | "active" | "x" => Some(true),
        "no" | "false" | "0" | "n" | "inactive" => Some(false),
        _ => None,
    }
}

/// A cell as it was before it was made safe for spreadsheets: they would read a value that begins so
/// as a formula, so an apostrophe stands before it.
fn unescaped(cell: &str) -> &str {
    match cell.strip_prefix('\'') {
        Some(rest)
            if rest.trim_start_matches('\'').starts_with(['=', '+', '-', '@', '\t', '\r']) =>
        {
            rest
        }
        _ => cell,
    }
}

/// The column of a name in the header, in any of its common spellings.
fn column(name: &str, fields: &[String; 3]) -> Option<Column> {
    let key = caseless::key(name);
    if let Some(at) =
        fields.iter().position(|field| !field.is_empty() && caseless::key(field) == key)
    {
        return Some(Column::Custom(at));
    }
    let plain: String = key.chars().filter(|c| !matches!(c, ' ' | '_' | '-' | '.')).collect();
    Some(match plain.as_str() {
        "username" | "login" | "user" => Column::UserName,
        "email" | "mail" | "emailaddress" | "workemail" | "primaryemail" | "emails" => {
            Column::Email
        }
        "firstname" | "givenname" | "forename" | "namegivenname" => Column::GivenName,
        "lastname" | "familyname" | "surname" | "namefamilyname" => Column::FamilyName,
        "displayname" | "name" | "fullname" => Column::DisplayName,
        "country" | "countrycode" | "contentregion" => Column::Country,
        "locale" | "language" => Column::Locale,
        "active" | "status" | "isactive" => Column::Active,
        "approvers" | "approver" | "approveremail" | "approveremails" => Column::Approvers,
        "externalid" => Column::ExternalId,
        "customfield1" => Column::Custom(0),
        "customfield2" => Column::Custom(1),
        "customfield3" => Column::Custom(2),
        _ => return None,
    })
}

fn decode(bytes: &[u8]) -> Result<&str, Problem> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        let what = "The file is UTF-16. Save it as “CSV UTF-8” and send it again.";
        return Err(Problem::at(1, 1, what));
    }
    let bytes = bytes.strip_prefix(&[0xef, 0xbb, 0xbf]).unwrap_or(bytes);
    let (end, what) = match std::str::from_utf8(bytes) {
        Ok(text) => match text.find('\0') {
            None if text.trim().is_empty() => {
                return Err(Problem::at(
                    1,
                    1,
                    "The file is empty. Its first line names the columns.",
                ));
            }
            None => return Ok(text),
            Some(at) => (at, "a NUL character. Save the file as “CSV UTF-8” and send it again."),
        },
        Err(error) => (
            error.valid_up_to(),
            "a character that is not UTF-8. Save the file as “CSV UTF-8” and send it again.",
        ),
    };
    let before = String::from_utf8_lossy(&bytes[..end]);
    let line = before.matches('\n').count() as u64 + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() as u64 + 1;
    Err(Problem::at(line, column, format!("There is {what}")))
}

/// Whatever of comma and semicolon the first line has more of.
fn delimiter(text: &str) -> u8 {
    let first = text.lines().next().unwrap_or_default();
    let count = |delimiter: char| first.matches(delimiter).count();
    if count(';') > count(',') { b';' } else { b',' }
}

fn reader(text: &str, delimiter: u8) -> csv::Reader<&[u8]> {
    csv::ReaderBuilder::new().delimiter(delimiter).flexible(true).from_reader(text.as_bytes())
}

fn broken(error: &csv::Error) -> Problem {
    let line = error.position().map_or(0, csv::Position::line);
    Problem::of_line(line, "The line does not read as CSV.")
}

/// Where the header's column begins.
fn column_of(text: &str, delimiter: u8, at: usize) -> u64 {
    let first = text.lines().next().unwrap_or_default();
    let cells = first.split(char::from(delimiter)).take(at);
    cells.map(|cell| cell.chars().count() as u64 + 1).sum::<u64>() + 1
}

/// Checks that quotes stand around cells and nowhere else (RFC 4180 §2), which readers of CSV
/// forgive in ways that shift cells; how many lines follow the first that are not empty.
fn check_quotes(text: &str, delimiter: u8) -> Result<u64, Problem> {
    #[derive(PartialEq)]
    enum State {
        Start,
        Plain,
        Quoted,
        /// After a quote in a quoted cell: it has ended, or the next one doubles it.
        Quote,
    }
    let delimiter = char::from(delimiter);
    let (mut line, mut column, mut rows, mut filled) = (1, 0, 0_u64, false);
    let mut opened = (1, 1);
    let mut state = State::Start;
    let mut letters = text.chars().peekable();
    while let Some(c) = letters.next() {
        column += 1;
        state = match (state, c) {
            (State::Quoted, '"') => State::Quote,
            (State::Quoted, _) | (State::Quote, '"') => State::Quoted,
            (State::Start, '"') => {
                (opened, filled) = ((line, column), true);
                State::Quoted
            }
            (_, '\n') => {
                rows += u64::from(filled);
                filled = false;
                State::Start
            }
            // The reader would end a line here, and count none.
            (_, '\r') if letters.peek().is_some_and(|next| *next != '\n') => {
                let what = "There is a carriage return that no line feed follows. Save the file as \
                            “CSV UTF-8” and send it again.";
                return Err(Problem::at(line, column, what));
            }
            (State::Quote, '\r') => State::Quote,
            (_, c) if c == delimiter => State::Start,
            (State::Quote, _) => {
                let what = "A quote ends the cell, but it goes on. Double a quote that is part of \
                            the text, as in \"the \"\"best\"\"\".";
                return Err(Problem::at(line, column, what));
            }
            (State::Plain, '"') => {
                let what = "There is a quote inside a cell that does not begin with one. Put quotes \
                            around the whole cell and double the quote inside.";
                return Err(Problem::at(line, column, what));
            }
            // A blank as well: a quote behind it begins no quoted cell for the reader.
            (_, c) => {
                filled |= !c.is_whitespace();
                State::Plain
            }
        };
        if c == '\n' {
            (line, column) = (line + 1, 0);
        }
    }
    if state == State::Quoted {
        let what = "The quote that begins here is never closed. Close it, or remove it.";
        return Err(Problem::at(opened.0, opened.1, what));
    }
    rows += u64::from(filled);
    Ok(rows.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> [String; 3] {
        ["Job function".into(), String::new(), String::new()]
    }

    fn read(file: &[u8]) -> Result<Vec<User>, Problem> {
        let file = PeopleFile::open(file, &fields())?;
        let entries: Result<Vec<Entry>, Problem> = file.entries().collect();
        let entries = entries?;
        assert_eq!(entries.len() as u64, file.row_count);
        Ok(entries.iter().map(|entry| entry.apply(User::default()).unwrap()).collect())
    }

    #[test]
    fn columns_come_in_any_order_and_spelling_with_comma_or_semicolon_and_with_or_without_bom() {
        for file in [
            "Email,First Name,surname,COUNTRY,job function\nann@x.example,Ann,Bell,GB,Sales\n",
            "\u{feff}job function;country_code;lastName;givenName;e-mail\r\nSales;GB;\"Bell\";Ann;ann@x.example",
            "surname,unknown,mail,Given-Name,customField1,content region\n\n Bell ,x,ann@x.example,Ann,\"Sales\",GB\n,,,,,\n",
        ] {
            let users = read(file.as_bytes()).unwrap();
            assert_eq!(users.len(), 1, "{file}");
            let name = users[0].name.clone().unwrap();
            assert_eq!(name.given_name.as_deref(), Some("Ann"), "{file}");
            assert_eq!(name.family_name.as_deref(), Some("Bell"), "{file}");
            assert_eq!(users[0].country_code.as_deref(), Some("GB"), "{file}");
            assert_eq!(users[0].custom_field_1.as_deref(), Some("Sales"), "{file}");
            assert_eq!(primary_email(&users[0].emails), Some("ann@x.example"), "{file}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told_with_line_and_column() {
        for (file, line, column, says) in [
            (&b"\xff\xfee\0m\0"[..], 1, 1, "UTF-16"),
            (b"email\nann@x.example\nb\xffo\n", 3, 2, "not UTF-8"),
            (b"email\na\0b\n", 2, 2, "NUL"),
            (b"", 1, 1, "empty"),
            (b"email\rann@x.example\rbo@x.example\r", 1, 6, "carriage return"),
            (b"email,name\r\nann,\"Ann\"\rbo,Bo\r\n", 2, 10, "carriage return"),
            (b"name\nAnn\n", 1, 1, "no column"),
            (b"email,country,E-Mail\nx,y,z\n", 1, 15, "hold the same"),
            (b"email,name\nann,\"Ann\" Bell\n", 2, 10, "ends the cell"),
            (b"email,name\nann,Ann \"B\" Bell\n", 2, 9, "inside a cell"),
            (b"email,name\nann,\"Ann\nbo,Bo\n", 2, 5, "never closed"),
            (b"email\nann,more\n", 2, 0, "2 cells"),
        ] {
            let problem = read(file).unwrap_err();
            assert_eq!((problem.line, problem.column), (line, column), "{problem:?}");
            assert!(problem.description.contains(says), "{problem:?}");
        }
        let many = "email\n".to_owned() + &"a@x.example\n".repeat(50_001);
        assert!(read(many.as_bytes()).unwrap_err().description.contains("at most 50000"));
    }

    #[test]
    fn quotes_hold_delimiters_lines_and_quotes() {
        let file = b"email,approvers,name\na,\"b@x.example, c@x.example;\nd@x.example\",\"A \"\"B\"\"\"\r\n";
        let users = read(file).unwrap();
        assert_eq!(users[0].declared_approvers, ["b@x.example", "c@x.example", "d@x.example"]);
        assert_eq!(users[0].display_name.as_deref(), Some("A \"B\""));
    }

    #[test]
    fn a_row_changes_what_it_says_and_an_empty_cell_empties() {
        let file = PeopleFile::open(b"user name,email,job function,active\nann,,,no\n", &fields());
        let file = file.unwrap();
        let entry = file.entries().next().unwrap().unwrap();
        let ann = User {
            user_name: Some("Ann".into()),
            title: Some("Head".into()),
            active: Some(true),
            custom_field_1: Some("Sales".into()),
            custom_field_2: Some("Red".into()),
            emails: vec![MultiValue { value: Some("a@x".into()), ..MultiValue::default() }],
            ..User::default()
        };
        let changed = entry.apply(ann.clone()).unwrap();
        let expected = User {
            user_name: Some("ann".into()),
            active: Some(false),
            custom_field_1: None,
            ..ann
        };
        assert_eq!(changed, expected);
    }

    #[test]
    fn the_apostrophe_before_a_formula_is_taken_away_and_no_other() {
        for (cell, value) in [
            ("'=1", "=1"),
            ("'+44", "+44"),
            ("''=1", "'=1"),
            ("'tis", "'tis"),
            ("+44", "+44"),
            ("'", "'"),
        ] {
            assert_eq!(unescaped(cell), value);
        }
    }
}
