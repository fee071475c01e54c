//! [`Directory`]: look-ups over the organisation's directory. Pure.
//!
//! Deliberately absent: where the directory comes from ([`crate::directory`]) and HTTP ([`crate::tool`]).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// People in one answer unless asked otherwise.
const DEFAULT_LIMIT: usize = 10;
/// People in one answer at most.
const LARGEST_LIMIT: usize = 100;
/// People named when nobody fits.
const NEAREST: usize = 3;

/// One person, as delivered and as answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    /// Id: `aaron.phillips`.
    pub id: String,
    /// Full name.
    pub name: String,
    /// Job title.
    pub title: String,
    /// `ceo`, `vp`, `director`, `manager`, `ic`.
    pub level: String,
    /// Department name.
    #[serde(default)]
    pub department: Option<String>,
    /// Team name.
    #[serde(default)]
    pub team: Option<String>,
    /// Id of whom they report to.
    #[serde(default)]
    pub reports_to: Option<String>,
    /// `@aaron.phillips:anycompany.corp`.
    pub matrix_id: String,
    /// Whether they can be written to: a running agent, or a human with an account.
    #[serde(default)]
    pub deployed: bool,
}

/// What the tool asks.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    action: Action,
    #[serde(default)]
    query: String,
    #[serde(default)]
    limit: Option<usize>,
    #[serde(default)]
    offset: usize,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Action {
    Search,
    Find,
    Department,
    Team,
    Title,
    Level,
    Manager,
    Reports,
    Chain,
    List,
}

/// People who fit, in a stable order.
#[derive(Debug, Serialize)]
pub struct Found {
    /// How many fit in all.
    pub total: usize,
    /// Those from `offset` on, at most `limit`.
    pub people: Vec<Person>,
    /// What a reader should know about the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// A question without an answer.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Unanswerable {
    /// A query is needed.
    #[error("this action needs a query: {0}")]
    NoQuery(&'static str),
    /// There is no such person.
    #[error("nobody is called {query:?}{}", nearest_text(.nearest))]
    Nobody {
        /// Who was asked for.
        query: String,
        /// Ids of people who come close.
        nearest: Vec<String>,
    },
}

fn nearest_text(nearest: &[String]) -> String {
    if nearest.is_empty() { String::new() } else { format!("; did you mean {}?", nearest.join(", ")) }
}

/// Everybody, by id.
#[derive(Debug, Default)]
pub struct Directory {
    people: BTreeMap<String, Person>,
}

impl Directory {
    /// A directory of these people.
    pub fn new(people: Vec<Person>) -> Self {
        Self { people: people.into_iter().map(|person| (person.id.clone(), person)).collect() }
    }

    /// How many people there are.
    pub fn len(&self) -> usize {
        self.people.len()
    }

    /// Answers a question.
    ///
    /// # Errors
    /// [`Unanswerable`] when the query is missing or names nobody.
    pub fn answer(&self, question: &Question) -> Result<Found, Unanswerable> {
        let query = question.query.trim();
        if query.is_empty() && question.action != Action::List {
            return Err(Unanswerable::NoQuery(wanted(question.action)));
        }
        let all = self.fitting(question.action, query)?;
        let limit = question.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, LARGEST_LIMIT);
        let total = all.len();
        let people: Vec<Person> = all.into_iter().skip(question.offset).take(limit).cloned().collect();
        let next = question.offset + people.len();
        let note = (next < total && !people.is_empty())
            .then(|| format!("{} more: ask again with offset {next}", total - next));
        Ok(Found { total, people, note })
    }

    fn fitting(&self, action: Action, query: &str) -> Result<Vec<&Person>, Unanswerable> {
        let is = |value: Option<&str>| value.is_some_and(|value| same(value, query));
        Ok(match action {
            Action::Search => self.search(query),
            Action::Find => vec![self.person(query)?],
            Action::Department => self.where_(|p| is(p.department.as_deref())),
            Action::Team => self.where_(|p| is(p.team.as_deref())),
            Action::Title => self.where_(|p| fold(&p.title).contains(&fold(query))),
            Action::Level => self.where_(|p| is(Some(&p.level))),
            Action::Manager => self.manager(self.person(query)?).into_iter().collect(),
            Action::Reports => {
                let id = &self.person(query)?.id;
                self.where_(|p| p.reports_to.as_ref() == Some(id))
            }
            Action::Chain => self.chain(self.person(query)?),
            Action::List => self.people.values().collect(),
        })
    }

    fn where_(&self, fits: impl Fn(&Person) -> bool) -> Vec<&Person> {
        self.people.values().filter(|person| fits(person)).collect()
    }

    /// Everybody in whom each word occurs somewhere, those whose name or id it begins with first.
    fn search(&self, query: &str) -> Vec<&Person> {
        let folded = fold(query);
        let words: Vec<&str> = folded.split_whitespace().collect();
        let mut found = self.where_(|person| {
            let text = haystack(person);
            words.iter().all(|word| text.contains(word))
        });
        found.sort_by_key(|person| {
            let begins = fold(&person.name).starts_with(&folded) || person.id.starts_with(&folded);
            (!begins, &person.id)
        });
        found
    }

    fn person(&self, query: &str) -> Result<&Person, Unanswerable> {
        let exact = |p: &&Person| same(&p.id, query) || same(&p.matrix_id, query) || same(&p.name, query);
        self.people.values().find(exact).ok_or_else(|| {
            let mut close = self.search(query);
            if close.is_empty() {
                let folded = fold(query);
                let words: Vec<&str> = folded.split(|c: char| c.is_whitespace() || c == '.' || c == '@').collect();
                close = self.where_(|p| words.iter().any(|word| word.len() > 2 && haystack(p).contains(word)));
            }
            let nearest = close.iter().take(NEAREST).map(|p| p.id.clone()).collect();
            Unanswerable::Nobody { query: query.to_owned(), nearest }
        })
    }

    fn manager(&self, person: &Person) -> Option<&Person> {
        person.reports_to.as_ref().and_then(|id| self.people.get(id))
    }

    /// Managers of a person up to the top, nearest first. Ends at a cycle, which `fleetctl check` refuses anyway.
    fn chain<'a>(&'a self, person: &'a Person) -> Vec<&'a Person> {
        let mut seen = BTreeSet::from([&person.id]);
        let mut chain = Vec::new();
        let mut at = person;
        while let Some(manager) = self.manager(at) {
            if !seen.insert(&manager.id) {
                break;
            }
            chain.push(manager);
            at = manager;
        }
        chain
    }
}

fn wanted(action: Action) -> &'static str {
    match action {
        Action::Search => "words to look for",
        Action::Department => "a department",
        Action::Team => "a team",
        Action::Title => "a title or a part of one",
        Action::Level => "ceo, vp, director, manager or ic",
        Action::Find | Action::Manager | Action::Reports | Action::Chain | Action::List => {
            "a person's id, full name or Matrix id"
        }
    }
}

fn haystack(person: &Person) -> String {
    let parts = [
        person.id.as_str(),
        &person.name,
        &person.title,
        &person.level,
        person.department.as_deref().unwrap_or_default(),
        person.team.as_deref().unwrap_or_default(),
        &person.matrix_id,
    ];
    fold(&parts.join("\n"))
}

fn fold(text: &str) -> String {
    text.to_lowercase()
}

fn same(one: &str, other: &str) -> bool {
    fold(one) == fold(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(id: &str, name: &str, level: &str, reports_to: Option<&str>) -> Person {
        Person {
            id: id.to_owned(),
            name: name.to_owned(),
            title: format!("{level} of Things"),
            level: level.to_owned(),
            department: Some("Engineering".to_owned()),
            team: (level == "ic").then(|| "Platform".to_owned()),
            reports_to: reports_to.map(str::to_owned),
            matrix_id: format!("@{id}:b.c"),
            deployed: true,
        }
    }

    fn directory() -> Directory {
        Directory::new(vec![
            person("manu.mishra", "Manu Mishra", "ceo", None),
            person("aaron.phillips", "Aaron Phillips", "vp", Some("manu.mishra")),
            person("élodie.manu", "Élodie Manu", "ic", Some("aaron.phillips")),
            person("beau.manu", "Beau Manu", "ic", Some("aaron.phillips")),
        ])
    }

    fn ask(json: &str) -> Result<Vec<String>, Unanswerable> {
        let found = directory().answer(&serde_json::from_str(json).unwrap())?;
        Ok(found.people.into_iter().map(|person| person.id).collect())
    }

    #[test]
    fn every_action_answers() {
        for (question, expected) in [
            (r#"{"action":"search","query":"manu"}"#, vec!["manu.mishra", "beau.manu", "élodie.manu"]),
            (r#"{"action":"search","query":"platform BEAU"}"#, vec!["beau.manu"]),
            (r#"{"action":"find","query":"@aaron.phillips:b.c"}"#, vec!["aaron.phillips"]),
            (r#"{"action":"find","query":"ÉLODIE manu"}"#, vec!["élodie.manu"]),
            (r#"{"action":"department","query":"engineering","limit":1}"#, vec!["aaron.phillips"]),
            (r#"{"action":"team","query":"platform"}"#, vec!["beau.manu", "élodie.manu"]),
            (r#"{"action":"title","query":"vp of"}"#, vec!["aaron.phillips"]),
            (r#"{"action":"level","query":"IC"}"#, vec!["beau.manu", "élodie.manu"]),
            (r#"{"action":"manager","query":"beau.manu"}"#, vec!["aaron.phillips"]),
            (r#"{"action":"manager","query":"manu.mishra"}"#, vec![]),
            (r#"{"action":"reports","query":"Aaron Phillips"}"#, vec!["beau.manu", "élodie.manu"]),
            (r#"{"action":"chain","query":"beau.manu"}"#, vec!["aaron.phillips", "manu.mishra"]),
            (r#"{"action":"list","limit":2,"offset":3}"#, vec!["élodie.manu"]),
        ] {
            assert_eq!(ask(question).unwrap(), expected, "{question}");
        }
    }

    #[test]
    fn a_person_who_is_missing_is_answered_with_the_nearest() {
        let error = ask(r#"{"action":"find","query":"aaron.philips"}"#).unwrap_err();
        assert!(error.to_string().contains("did you mean aaron.phillips"), "{error}");
        assert_eq!(
            ask(r#"{"action":"manager","query":" "}"#).unwrap_err(),
            Unanswerable::NoQuery("a person's id, full name or Matrix id")
        );
    }

    #[test]
    fn a_long_answer_says_how_to_read_on_and_stays_below_a_hundred() {
        let many = (0..250).map(|n| person(&format!("p{n:03}"), "P", "ic", None)).collect();
        let found =
            Directory::new(many).answer(&serde_json::from_str(r#"{"action":"list","limit":5000}"#).unwrap()).unwrap();
        assert_eq!((found.total, found.people.len()), (250, 100));
        assert_eq!(found.note.as_deref(), Some("150 more: ask again with offset 100"));
    }

    #[test]
    fn a_cycle_of_managers_ends() {
        let people = vec![person("a", "A", "vp", Some("b")), person("b", "B", "vp", Some("a"))];
        let found =
            Directory::new(people).answer(&serde_json::from_str(r#"{"action":"chain","query":"a"}"#).unwrap()).unwrap();
        assert_eq!(found.total, 1);
    }
}
