//! People, departments, teams: what each code means.

use super::Explanation;
use crate::code;

pub(crate) const ALL: &[Explanation] = &[
    Explanation {
        code: code::UNKNOWN_DEPARTMENT,
        title: "A department that nobody declared",
        text: r#"A selector, a room or a person names a department that neither `fleet.kdl` nor the directory file has. Department names are compared exactly as written.

```kdl
environment "local" { deploy department="Leagl" }
```

Correct the name, or declare the department."#,
    },
    Explanation {
        code: code::UNKNOWN_TEAM,
        title: "A team that nobody declared",
        text: r#"A selector, a room or a person names a team that does not exist, or that another department has.

```kdl
environment "local" { deploy department="Sales" team="Frontend" }
```

Correct the name, or the department beside it."#,
    },
    Explanation {
        code: code::UNKNOWN_PERSON,
        title: "A person who does not exist",
        text: r#"A room or a `deploy` names an id that nobody has, neither in `fleet.kdl` nor in the directory file.

```kdl
environment "local" { deploy "aron.phillips" }
```

Correct the id; the nearest known one is shown."#,
    },
    Explanation {
        code: code::MISSING_MANAGER,
        title: "A manager who does not exist",
        text: r#"`reports-to` names an id that nobody has. The predecessor of this tool deployed such a person without a manager; here it is an error, since rooms and direct messages follow reporting lines.

```kdl
person "ana.costa" level="vp" reports-to="maria.sliva"
```

Correct the id, or declare the manager. When somebody leaves, move their reports first."#,
    },
    Explanation {
        code: code::NO_MANAGER,
        title: "Somebody who reports to nobody",
        text: r#"Reporting lines form one tree, and its top is the person of level `ceo`. Everybody else needs a manager.

```kdl
person "ana.costa" level="vp"
```

Add `reports-to`, in the node or in the row."#,
    },
    Explanation {
        code: code::SECOND_HEAD,
        title: "Two heads",
        text: r#"Two people are of level `ceo`. Reporting lines form one tree with one top.

```kdl
person "maria.silva" level="ceo"
person "ana.costa" level="ceo"
```

Give one of them another level and a manager."#,
    },
    Explanation {
        code: code::REPORTING_CYCLE,
        title: "People who report to each other",
        text: r#"Following `reports-to` from one of these people comes back to them. The message shows the chain.

```kdl
person "ana.costa" level="manager" reports-to="rui.lima"
person "rui.lima" level="manager" reports-to="ana.costa"
```

Let one of them report to somebody outside of the circle."#,
    },
    Explanation {
        code: code::DIRECTORY_SYNTAX,
        title: "A directory file that cannot be parsed",
        text: r#"A people directory is CSV with a header line, or a JSON array of objects. From this line on it is neither.

```kdl
org { directory "people.json" }
```

Mend the line that is shown. Rows before it were read and checked."#,
    },
    Explanation {
        code: code::DIRECTORY_COLUMN,
        title: "A column that is not known, or missing",
        text: r"The columns are `id`, `name`, `title`, `level`, `department`, `team` and `reports_to`, in any order. `id` is needed, the others may be left out. Unknown columns are refused: a misspelt one would silently be empty.

```text
id,name,level,manager
```

Rename the column, or remove it from the export.",
    },
    Explanation {
        code: code::DIRECTORY_ROW,
        title: "A row that makes no sense",
        text: r#"The row has another number of fields than the header, no id, a value that is not a text, or a team without a department.

```text
id,name,level
maria.silva,"Silva, Maria"
```

Mend that row; fields that hold a comma need quotes."#,
    },
    Explanation {
        code: code::ANSWERS_EVERYTHING,
        title: "Agents that answer without being mentioned",
        text: r"With `require-mention #false` an agent answers every message in its rooms. Two of them in one room answer each other until somebody stops them, and every answer costs money.

```kdl
defaults { require-mention #false }
```

Leave it on. If one agent must read along, switch it off on that person alone; this stays a warning.",
    },
];
