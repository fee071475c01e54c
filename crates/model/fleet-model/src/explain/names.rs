//! Names and ids: what each code means.

use super::Explanation;
use crate::code;

pub(crate) const ALL: &[Explanation] = &[
    Explanation {
        code: code::BAD_NAME,
        title: "Not a usable name",
        text: r#"The names of fleets, images, model providers, environments and tenants become parts of container names, tags, host names and volume names. What all of those accept is: lower-case letters, digits and dashes, a letter first, at most 32 characters. The users of an image may also have underscores, and none is called `root`.

```kdl
fleet "Any Company" domain="anycompany.corp"
```

Use the name that the help suggests."#,
    },
    Explanation {
        code: code::BAD_DOMAIN,
        title: "Not a Matrix server name",
        text: r#"`domain` is the part after the colon of every Matrix id. It cannot be changed later without losing every account and room.

```kdl
fleet "tiny" domain="https://tiny.test/"
```

Write a DNS name in lower case, without scheme, port or path."#,
    },
    Explanation {
        code: code::BAD_MATRIX_ID,
        title: "Not a Matrix local part",
        text: r#"A person's id is the part between `@` and `:` of their Matrix id, and part of container and volume names. Lower-case letters, digits, `.`, `-` and `_` are accepted, a letter or digit at both ends, at most 63. Level words (`ceo`, `vp`, …) are not: in rooms they mean everybody of that level.

```kdl
person "Maria Silva" level="ceo"
```

Use the id that the help suggests, and put the name into `name=`."#,
    },
    Explanation {
        code: code::EMPTY_SLUG,
        title: "A name of which no alias can be made",
        text: r#"Room aliases are made of the names of departments and teams: Unicode is reduced to ASCII, everything but letters and digits becomes a dash. Of this name nothing is left.

```kdl
department "研究"
```

Say the alias: `department "研究" alias="research"`."#,
    },
    Explanation {
        code: code::DUPLICATE,
        title: "Declared twice",
        text: r#"Two things of one kind have one name. Nothing is merged silently, with one exception: a `person` node and a row of the directory file may have one id, and the node then overrides the row.

```kdl
images {
    image "agent" { base "docker.io/library/debian:bookworm" }
    image "agent" { base "docker.io/library/debian:trixie" }
}
```

Rename or remove one of the two; both places are shown."#,
    },
];
