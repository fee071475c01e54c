//! The language itself: what each code means.

use super::Explanation;
use crate::code;

pub(crate) const ALL: &[Explanation] = &[
    Explanation {
        code: code::SYNTAX,
        title: "The text is not KDL",
        text: r"The file is written in KDL 2 (https://kdl.dev), and the parser could not make sense of this place. What stands around it was still read, but names that it may have declared are not checked until it parses.

```kdl
require-mention true
```

Values that are not texts start with `#`: `#true`, `#false`, `#null`. Texts that hold spaces or start with a digit need quotes. Every `{` needs its `}`.",
    },
    Explanation {
        code: code::UNKNOWN_NODE,
        title: "A node that cannot stand here",
        text: r#"Every node holds a fixed set of nodes, and this is not one of them. It is refused rather than ignored: a setting that does nothing is worse than an error.

```kdl
org {
    pesron "maria.silva" level="ceo"
}
```

Correct the spelling, move the node to where it belongs, or write it as a property if the help says so. `docs/reference/language.md` lists what every node holds."#,
    },
    Explanation {
        code: code::UNKNOWN_PROPERTY,
        title: "A property that the node does not have",
        text: r#"A property is `name=value` on the line of a node. This node does not know that name.

```kdl
fleet "tiny" domian="tiny.test"
```

Correct the spelling, or write it as a node within the braces if the help says so."#,
    },
    Explanation {
        code: code::MISSING_ARGUMENT,
        title: "An argument is missing",
        text: r"Arguments are the values that follow a node's name; this node needs more of them.

```kdl
include
```

Add what the help shows.",
    },
    Explanation {
        code: code::EXTRA_ARGUMENT,
        title: "An argument too many",
        text: r#"This node takes fewer arguments than it was given. Often two nodes were written on one line without a `;`, or a property lost its name.

```kdl
templates "templates" "more-templates"
```

Remove the argument, separate the nodes, or give the value its name."#,
    },
    Explanation {
        code: code::MISSING_PROPERTY,
        title: "A property that must be there",
        text: r#"This node cannot be understood without that property; there is no sensible default. For people it can also come from their row of the directory file.

```kdl
fleet "tiny"
```

Add the property; the help shows an example."#,
    },
    Explanation {
        code: code::MISSING_NODE,
        title: "A node that must be there",
        text: r#"Something is declared without a part that it cannot do without: a project without `fleet`, an environment without `target`, a room without `members`, a layer without packages.

```kdl
environment "local" {
    deploy "maria.silva"
}
```

Add the node; the help shows an example."#,
    },
    Explanation {
        code: code::REPEATED,
        title: "Set twice",
        text: r#"A node or property that can stand once stands twice. Which of the two was meant cannot be guessed.

```kdl
fleet "tiny" domain="tiny.test"
fleet "large" domain="large.test"
```

Keep one of the two. In an environment that `extends` another, say only what differs."#,
    },
    Explanation {
        code: code::WRONG_TYPE,
        title: "A value of the wrong type",
        text: r#"KDL tells texts (`"5"`), numbers (`5`) and `#true`/`#false` apart, and so does this property or argument.

```kdl
size cpu="1024" memory-mib=2048
```

Add or remove the quotes, or write `#true` and `#false` with their `#`."#,
    },
    Explanation {
        code: code::UNKNOWN_WORD,
        title: "Not one of the words that can stand here",
        text: r#"The value is one of a few words: a level, a target, a platform, a kind of homeserver, a pairing.

```kdl
person "maria.silva" level="boss"
```

Use one of the words that the help lists."#,
    },
    Explanation {
        code: code::BAD_VALUE,
        title: "A value that makes no sense here",
        text: r#"The type is right, the value is not: a number out of range, a span of time without a unit, a version that is a range, a path in an image that is not absolute.

```kdl
heartbeat "5 minutes"
```

The label says what is expected, the help shows an example. Spans of time are `30s`, `5m`, `12h`, `7d`."#,
    },
    Explanation {
        code: code::INCLUDE_CYCLE,
        title: "Files include each other",
        text: r#"`include` reads another file as if its nodes stood here. These files include each other in a circle, so there is no end to it.

```kdl
include "fleet.kdl"
```

Remove one of the includes. What two files both need belongs into a third that both include."#,
    },
    Explanation {
        code: code::TOOL_VERSION,
        title: "Another version of fleetctl is wanted",
        text: r#"`tool-version` says which versions of `fleetctl` this project was made for, so that nobody applies it with one that derives other hashes without knowing.

```kdl
fleet "tiny" domain="tiny.test" tool-version=">=99"
```

Install a version of that range, or change the range after reading the changelog of what lies between."#,
    },
];
