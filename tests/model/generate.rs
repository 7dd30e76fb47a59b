//! Random operations on few names, so that they clash.

use super::edit::{GroupEdit, UserEdit, Wrong, index_of};
use super::list::{Page, Query};
use super::random::Random;
use super::user::TEXTS;
use super::{Doc, Email, Op};

/// People's names, which are addresses too; the last are spellings of one another.
const PEOPLE: [&str; 14] = [
    "ann@a.example",
    "bo@a.example",
    "cy@a.example",
    "dee@a.example",
    "eli@a.example",
    "fay@a.example",
    "gus@a.example",
    "Ann@A.example",
    " bo@a.example ",
    "éva@a.example",
    "E\u{301}va@a.example",
    "kim@a.example",
    "\u{212a}im@a.example",
    "kim\u{200b}@a.example",
];
const GROUPS: [&str; 6] = ["Everybody", "Sales", "SALES ", "Boston", "everybody", "Press"];
const COUNTRIES: [&str; 10] = ["GB", "gb", "IT", "de", "ca", "NO", "FR", "QQ", "uk", "Germany"];
const WORDS: [&str; 5] = ["one", "Two", "three \"quoted\"", "vier, fünf", "e-1"];

/// What a client knows of an organisation: ids that it has seen, with the last revision of each.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    pub(crate) users: Vec<(String, i64)>,
    pub(crate) groups: Vec<(String, i64)>,
}

impl Known {
    pub(crate) fn note_user(&mut self, id: &str, revision: i64) {
        note(&mut self.users, id, revision);
    }

    pub(crate) fn note_group(&mut self, id: &str, revision: i64) {
        note(&mut self.groups, id, revision);
    }
}

fn note(known: &mut Vec<(String, i64)>, id: &str, revision: i64) {
    match known.iter_mut().find(|(known, _)| known == id) {
        Some((_, last)) => *last = revision.max(*last),
        None => known.push((id.to_owned(), revision)),
    }
}

/// The next operation. With `reads`, some only read.
pub(crate) fn op(random: &mut Random, known: &Known, reads: bool) -> Op {
    let form = random.below(60);
    if known.users.len() < 3 {
        return Op::CreateUser { doc: doc(random), form };
    }
    let at = if reads { random.below(100) } else { random.below(78) };
    match at {
        0..14 => Op::CreateUser { doc: doc(random), form },
        14..25 => {
            let (id, version) = some_user(random, known);
            Op::PutUser { id, doc: doc(random), version, form }
        }
        25..47 => {
            let (id, version) = some_user(random, known);
            let count = if random.chance(75) { 1 } else { 1 + random.below(3) };
            let edits = (0..count).map(|_| user_edit(random)).collect();
            Op::PatchUser { id, edits, version, form }
        }
        47..53 => {
            let (id, version) = some_user(random, known);
            Op::DeleteUser { id, version }
        }
        53..59 => Op::CreateGroup {
            name: (*random.pick(&GROUPS)).into(),
            external_id: text(random),
            members: members(random, known),
        },
        59..64 if !known.groups.is_empty() => {
            let (id, version) = some_group(random, known);
            Op::PutGroup {
                id,
                name: (*random.pick(&GROUPS)).into(),
                external_id: text(random),
                members: members(random, known),
                version,
            }
        }
        64..76 if !known.groups.is_empty() => {
            let (id, version) = some_group(random, known);
            let count = if random.chance(70) { 1 } else { 1 + random.below(3) };
            let edits = (0..count).map(|_| group_edit(random, known)).collect();
            Op::PatchGroup { id, edits, version, form }
        }
        76..78 if !known.groups.is_empty() => {
            let (id, version) = some_group(random, known);
            Op::DeleteGroup { id, version }
        }
        78..84 => Op::GetUser { id: some_user(random, known).0 },
        84..87 if !known.groups.is_empty() => Op::GetGroup { id: some_group(random, known).0 },
        87..100 => Op::List(query(random, known)),
        _ => Op::CreateUser { doc: doc(random), form },
    }
}

/// Several operations to ask for at once, each about somebody or something else: so a change says
/// which of them made it. Who is new has a name that nobody had before.
pub(crate) fn bulk(random: &mut Random, known: &Known) -> Vec<Op> {
    let mut ops: Vec<Op> = Vec::new();
    for _ in 0..2 + random.below(4) {
        let mut op = op(random, known, false);
        if let Op::CreateUser { doc, .. } = &mut op {
            doc.user_name = Some(format!("{:016x}@a.example", random.next()));
        }
        let is_alike =
            |other: &Op| op.subject() == other.subject() && op.is_of_users() == other.is_of_users();
        if !ops.iter().any(is_alike) {
            ops.push(op);
        }
    }
    ops
}

/// One who was created at some time, seldom nobody; a version now and then.
fn some_user(random: &mut Random, known: &Known) -> (String, Option<i64>) {
    some(random, &known.users)
}

fn some_group(random: &mut Random, known: &Known) -> (String, Option<i64>) {
    some(random, &known.groups)
}

fn some(random: &mut Random, known: &[(String, i64)]) -> (String, Option<i64>) {
    if random.chance(2) {
        return (nobody(random), None);
    }
    let (id, revision) = random.pick(known).clone();
    let version = match random.below(10) {
        0..2 => Some(revision),
        2 => Some((revision - 1).max(1)),
        _ => None,
    };
    (id, version)
}

fn nobody(random: &mut Random) -> String {
    format!("0190{:04x}-0000-7000-8000-{:012x}", random.below(0xffff), random.below(0xffff))
}

/// A user as a client sends one, of any completeness.
pub(crate) fn doc(random: &mut Random) -> Doc {
    let mut doc = Doc::default();
    if random.chance(90) {
        doc.user_name = Some(person(random));
    }
    doc.active = match random.below(8) {
        0 => Some(false),
        1..4 => Some(true),
        _ => None,
    };
    for name in TEXTS {
        if random.chance(20) {
            doc.texts[index_of(name)] = Some(word(name, random));
        }
    }
    match random.below(6) {
        0 => {}
        // Most people have their name as their address.
        1..4 => {
            let value = doc.user_name.clone().unwrap_or_else(|| person(random));
            doc.emails.push(Email {
                value: Some(value),
                kind: Some("work".into()),
                primary: random.chance(70).then_some(true),
            });
        }
        _ => doc.emails = emails(random),
    }
    if random.chance(40) {
        doc.country = Some((*random.pick(&COUNTRIES)).into());
    }
    if random.chance(50) {
        doc.approvers = people(random, 3);
    }
    doc
}

fn emails(random: &mut Random) -> Vec<Email> {
    let primary = random.below(4);
    let mut emails: Vec<Email> = Vec::new();
    for at in 0..random.below(3) {
        let kinds = [Some("work"), Some("home"), Some("Work"), None];
        emails.push(Email {
            value: Some(person(random)),
            kind: random.pick(&kinds).map(str::to_owned),
            primary: if at == primary { Some(true) } else { random.chance(20).then_some(false) },
        });
    }
    emails
}

fn user_edit(random: &mut Random) -> UserEdit {
    let kinds = ["work", "home"];
    match random.below(24) {
        0..2 => UserEdit::UserName(person(random)),
        2..6 => UserEdit::Active(random.chance(60)),
        6 => UserEdit::RemoveActive,
        7..9 => {
            let name = *random.pick(&TEXTS);
            UserEdit::Text(name, word(name, random))
        }
        9 => UserEdit::RemoveText(random.pick::<&str>(&TEXTS)),
        10 => UserEdit::Country((*random.pick(&COUNTRIES)).into()),
        11 => UserEdit::RemoveCountry,
        12 => UserEdit::Emails(emails(random)),
        13 => UserEdit::AddEmail(Email {
            value: Some(person(random)),
            kind: Some((*random.pick(&kinds)).into()),
            primary: random.chance(50).then_some(true),
        }),
        14..16 => UserEdit::EmailOfType(random.pick::<&str>(&kinds), person(random)),
        16 => UserEdit::PrimaryEmail(person(random)),
        17 => UserEdit::RemoveEmails(random.pick::<&str>(&kinds)),
        18 => UserEdit::Approvers(people(random, 3)),
        19..21 => UserEdit::AddApprovers(people(random, 2)),
        21 => UserEdit::RemoveApprovers(people(random, 2)),
        22 => UserEdit::RemoveAllApprovers,
        _ => UserEdit::Wrong(*random.pick(&[
            Wrong::ReadOnly,
            Wrong::UnknownPath,
            Wrong::NoTarget,
            Wrong::RemoveUserName,
            Wrong::Type,
        ])),
    }
}

fn group_edit(random: &mut Random, known: &Known) -> GroupEdit {
    match random.below(16) {
        0..2 => GroupEdit::Rename((*random.pick(&GROUPS)).into()),
        2 => GroupEdit::ExternalId(text(random)),
        3..8 => GroupEdit::AddMembers(members(random, known)),
        8..10 => GroupEdit::RemoveMembers(members(random, known)),
        10..12 => GroupEdit::RemoveMember(some_user(random, known).0),
        12 => GroupEdit::ReplaceMembers(members(random, known)),
        13 => GroupEdit::RemoveAllMembers,
        14 if random.chance(30) => GroupEdit::RemoveName,
        14 => GroupEdit::Nested(some_user(random, known).0),
        _ => GroupEdit::AddMembers(vec!["no id".into()]),
    }
}

fn members(random: &mut Random, known: &Known) -> Vec<String> {
    (0..random.below(5)).map(|_| some_user(random, known).0).collect()
}

fn query(random: &mut Random, known: &Known) -> Query {
    let page =
        Page { start_index: i64::try_from(random.below(6)).unwrap() - 1, count: random.below(5) };
    match random.below(14) {
        0 => Query::Users(page),
        1 => Query::UserName(person(random)),
        2 => Query::ExternalId(word("externalId", random)),
        3 => Query::Email(person(random)),
        4 => Query::Active(random.chance(50)),
        5 => Query::HasTitle,
        6 if !known.groups.is_empty() => Query::InGroup(some_group(random, known).0),
        7 => Query::Approver(person(random)),
        8 => Query::ActiveWithEmail(person(random)),
        9 => Query::Sorted,
        10 => Query::Groups(page),
        11 => Query::GroupName((*random.pick(&GROUPS)).into()),
        12 => Query::Unreadable,
        _ => Query::Users(Page { start_index: 1, count: 50 }),
    }
}

pub(crate) fn person(random: &mut Random) -> String {
    (*random.pick(&PEOPLE)).into()
}

fn people(random: &mut Random, most: usize) -> Vec<String> {
    let count = 1 + random.below(most);
    let one = |random: &mut Random| {
        if random.chance(5) { "no address".to_owned() } else { person(random) }
    };
    (0..count).map(|_| one(random).trim().to_owned()).collect()
}

fn word(name: &str, random: &mut Random) -> String {
    match name {
        "locale" => (*random.pick(&["en-GB", "sv_SE", "de"])).into(),
        "externalId" => (*random.pick(&["x1", "x2", "X1"])).into(),
        _ => (*random.pick(&WORDS)).into(),
    }
}

fn text(random: &mut Random) -> Option<String> {
    random.chance(40).then(|| (*random.pick(&WORDS)).into())
}
