//! What later stages find, which render templates and read the lock: what each code means.

use super::Explanation;
use crate::code;

pub(crate) const ALL: &[Explanation] = &[
    Explanation {
        code: code::TEMPLATE,
        title: "A template that cannot be rendered",
        text: r#"Templates are rendered strictly: a name that does not exist, a file that is not there and a syntax error are mistakes, never an empty text in an agent's instructions. Every file of the templates folder is parsed, and those that deployed agents use are rendered.

```jinja
You report to {{ agent.manager }}.
```

Templates see `agent.*` (`id`, `name`, `title`, `level`, `department`, `team`, `reports_to`, …), `fleet.*`, `skills` and `role_template`; copied files with `render=#true` see `fleet.*` and `environment.*`. `docs/reference/workspaces.md` lists all of them. What may be absent is asked for first: `{% if agent.team %}`."#,
    },
    Explanation {
        code: code::SKILL_NOT_TEXT,
        title: "A skill with a file that is not text",
        text: r#"A skill is a folder of UTF-8 text files: what an agent reads. A picture or a program in it would reach the agent as noise.

```text
templates/skills/people/logo.png
```

Move the file into an image of the fleet with `copy`, or save it as UTF-8."#,
    },
    Explanation {
        code: code::NOT_LOCKED,
        title: "Something that is not in fleet.lock",
        text: r#"Versions, hashes and digests are pinned in `fleet.lock`, so that two machines build the same. This image asks for something that was never looked up, or for something else than what was. `check` only warns of it, since an image of another environment may stand on a registry that cannot be reached from here; what builds the image refuses.

```kdl
image "agent" { node "24.99.0" }
```

Run the command that the help shows; it asks the registries and writes the pins. Nothing else updates them."#,
    },
    Explanation {
        code: code::LOCK_SYNTAX,
        title: "A lock file that cannot be read",
        text: r#"`fleet.lock` is written by `fleetctl lock` and by nothing else. This one is not text, not JSON, or not what that writes: it was edited, or two branches were merged within it; or a newer fleetctl wrote it. What it pins is unknown, so images are not judged.

```json
{"schema": 1, "bases": 5}
```

Restore it from version control, or run `fleetctl lock`, which starts afresh when it cannot read what is there: every version is looked up anew. One of a newer schema is left alone: use the version that wrote it."#,
    },
    Explanation {
        code: code::DOES_NOT_FIT,
        title: "An image whose parts do not fit",
        text: r#"Found before anything is built: the Node.js of the image is outside of the range that a package declares, the image is declared for another platform than the target's, a copied folder holds no file, or a file to be rendered is not text.

```kdl
image "agent" { node "18.20.0"; npm to="/opt/openclaw" { package "openclaw" "2026.9.6" } }
```

Change the version, the platform or the file that the message names."#,
    },
    Explanation {
        code: code::NO_STACK,
        title: "A stack that cannot be rendered",
        text: r#"Found before anything is deployed: what the environment asks of AWS does not go into one stack, or its network is too narrow for its agents, of which each takes an address of a private subnet.

```kdl
environment "dev" {
    target "aws" account="111122223333" region="us-east-1"
    network cidr="10.0.0.0/20"
    limits agents=100000
}
```

Change `network`, `limits` or `deploy` as the message says."#,
    },
];
