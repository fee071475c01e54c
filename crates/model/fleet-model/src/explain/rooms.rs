//! Rooms: what each code means.

use super::Explanation;
use crate::code;

pub(crate) const ALL: &[Explanation] = &[
    Explanation {
        code: code::UNKNOWN_PLACEHOLDER,
        title: "A placeholder that stands for nothing",
        text: r#"`{department}` works within `each "department"` and `each "team"`, `{team}` within `each "team"`. `in=` takes the placeholder of the thing that rooms repeat over.

```kdl
rooms { room "{team}-team" { members "*" } }
```

Put the room into `each "team" { … }`, or write a fixed alias."#,
    },
    Explanation {
        code: code::BAD_ALIAS,
        title: "Not a room alias",
        text: r#"An alias is what stands between `#` and `:`; lower-case letters, digits, dashes, dots and underscores are accepted. A room that repeats needs its placeholder in the alias, since otherwise all of them would be one room.

```kdl
rooms { room "All Employees" { members "*" } }
```

Use the alias that the help suggests, and put the pretty name into `name=`."#,
    },
    Explanation {
        code: code::ALIAS_COLLISION,
        title: "Two rooms with one alias",
        text: r#"Two rules, departments or teams make rooms of one alias in one environment: `FP&A` and `FP A` are both `fp-a`, and two departments may both have a team Platform. Members of both would silently share one room. Only rooms that the environment really makes are compared.

```kdl
department "Engineering" { team "Platform" }
department "Product" { team "Platform" }
```

Give one of them an alias of its own, `team "Platform" alias="product-platform"`, or put `{department}` into the rule's alias."#,
    },
    Explanation {
        code: code::UNKNOWN_ROOM,
        title: "A text mentions a room that nobody makes",
        text: r"A template or a skill mentions `#some-room`, and no rule makes a room of that alias for anybody in the organisation. Agents would try to write there, and fail. This is a warning.

```text
Report to #executive-team every Friday.
```

Correct the alias in the text, or add a rule that makes the room.",
    },
];
