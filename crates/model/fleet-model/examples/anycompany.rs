//! Prints the 1,001 people of AnyCompany as the CSV of `directory`, the same every time.
//!
//! The shape is that of the company this project's predecessor ran: nine departments, 28 teams, one VP a department,
//! one director a team, one manager for about five people. The names are ours. `org/people.csv` is this output:
//! `cargo run --release -p fleet-model --example anycompany > org/people.csv`.

use std::{collections::BTreeSet, io};

#[path = "anycompany/names.rs"]
mod names;

const SEED: u32 = 42;
const HEAD: &str = "manu.mishra";
const PEOPLE_PER_MANAGER: usize = 5;

/// Name, people, teams.
const DEPARTMENTS: [(&str, usize, &[&str]); 9] = [
    ("Engineering", 350, &["Platform", "Frontend", "Backend", "Infrastructure", "QA"]),
    ("Sales", 200, &["Enterprise", "Mid-Market", "SMB", "Partnerships"]),
    ("Marketing", 100, &["Brand", "Demand Gen", "Content", "Events"]),
    ("Product", 80, &["Core Product", "Growth", "Platform"]),
    ("Operations", 80, &["IT", "Facilities", "Security"]),
    ("Customer Success", 70, &["Enterprise CS", "Support", "Onboarding"]),
    ("Finance", 50, &["Accounting", "FP&A"]),
    ("People", 40, &["Recruiting", "People Ops"]),
    ("Legal", 30, &["Corporate", "Compliance"]),
];

/// People who are named elsewhere: department, team, level, name; each group in the order it is dealt out.
const FIXED: [(&str, &str, &str, &str); 9] = [
    ("Engineering", "", "vp", "Aaron Phillips"),
    ("Engineering", "Frontend", "director", "Austin Bailey"),
    ("Engineering", "Infrastructure", "director", "Evelyn Thompson"),
    ("Engineering", "Frontend", "manager", "Allison Butler"),
    ("Engineering", "Frontend", "manager", "Allison Lopez"),
    ("Engineering", "Frontend", "ic", "Angel Baker"),
    ("Engineering", "Frontend", "ic", "Anthony Hernandez"),
    ("Engineering", "Frontend", "ic", "Allison Roberts"),
    ("Engineering", "Frontend", "ic", "Beau Martinez"),
];

/// A linear congruential generator in floating point, as a JavaScript program would run it: above 2^53 the low bits
/// are rounded, and that rounding is part of the sequence.
struct Numbers(u32);

impl Numbers {
    fn next(&mut self, below: usize) -> usize {
        let product = f64::from(self.0) * 1_103_515_245.0 + 12_345.0;
        let wrapped = product.rem_euclid(4_294_967_296.0) as u64;
        self.0 = (wrapped & 0x7fff_ffff) as u32;
        self.0 as usize % below
    }
}

/// Draws names nobody has yet.
struct Draw {
    numbers: Numbers,
    taken: BTreeSet<String>,
    fixed: Vec<(&'static str, &'static str, &'static str, &'static str)>,
}

impl Draw {
    fn new() -> Self {
        let taken = FIXED.iter().map(|(.., name)| id_of(name)).chain([HEAD.to_owned()]).collect();
        Self { numbers: Numbers(SEED), taken, fixed: FIXED.to_vec() }
    }

    /// The next fixed person for this place, else a new name.
    fn name(&mut self, department: &str, team: &str, level: &str) -> String {
        if let Some(at) = self.fixed.iter().position(|(d, t, l, _)| (*d, *t, *l) == (department, team, level)) {
            return self.fixed.remove(at).3.to_owned();
        }
        loop {
            let first = names::FIRST[self.numbers.next(names::FIRST.len())];
            let last = names::LAST[self.numbers.next(names::LAST.len())];
            let name = format!("{first} {last}");
            if self.taken.insert(id_of(&name)) {
                return name;
            }
        }
    }
}

fn id_of(name: &str) -> String {
    name.to_lowercase().replace(' ', ".")
}

/// One row: id, name, title, level, department, team, reports_to.
type Row = [String; 7];

fn row(name: &str, title: String, level: &str, place: (&str, &str), manager: &str) -> Row {
    [id_of(name), name.to_owned(), title, level.to_owned(), place.0.to_owned(), place.1.to_owned(), manager.to_owned()]
}

fn department(draw: &mut Draw, (name, size, teams): (&str, usize, &[&str]), rows: &mut Vec<Row>) {
    let vp = draw.name(name, "", "vp");
    rows.push(row(&vp, format!("VP of {name}"), "vp", (name, ""), HEAD));
    let directors: Vec<String> = teams.iter().map(|team| draw.name(name, team, "director")).collect();
    for (team, director) in teams.iter().zip(&directors) {
        rows.push(row(director, format!("Director of {team}"), "director", (name, team), &id_of(&vp)));
    }
    let managers = (size - 1 - directors.len()) / (PEOPLE_PER_MANAGER + 1);
    let mut ics = size - 1 - directors.len() - managers;
    for number in 0..managers {
        // The teams take turns, from the second on, so that the two fixed managers of Frontend come early.
        let at = (number + 1) % teams.len();
        let place = (name, teams[at]);
        let manager = draw.name(name, place.1, "manager");
        rows.push(row(&manager, format!("{} Manager", place.1), "manager", place, &id_of(&directors[at])));
        let reports = if number + 1 == managers { ics } else { PEOPLE_PER_MANAGER };
        ics -= reports;
        for nth in 0..reports {
            // The two fixed managers of Frontend have two fixed people each.
            let fixed_manager = FIXED.iter().any(|(_, _, level, name)| *level == "manager" && *name == manager);
            let drawn_from = if fixed_manager && nth < 2 { place.1 } else { "" };
            let ic = draw.name(name, drawn_from, "ic");
            rows.push(row(&ic, format!("{} Specialist", place.1), "ic", place, &id_of(&manager)));
        }
    }
}

fn main() -> io::Result<()> {
    let mut draw = Draw::new();
    let mut rows = vec![row("Manu Mishra", "CEO".to_owned(), "ceo", ("", ""), "")];
    for one in DEPARTMENTS {
        department(&mut draw, one, &mut rows);
    }
    // The people that documents name come first.
    rows.sort_by_key(|row| {
        let fixed = FIXED.iter().position(|(.., name)| *name == row[1]);
        (row[3] != "ceo", fixed.is_none(), fixed)
    });
    let mut out = csv::Writer::from_writer(io::stdout().lock());
    out.write_record(["id", "name", "title", "level", "department", "team", "reports_to"])?;
    for row in &rows {
        out.write_record(row)?;
    }
    out.flush()
}
