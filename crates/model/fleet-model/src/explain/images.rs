//! Images, skills, templates: what each code means.

use super::Explanation;
use crate::code;

pub(crate) const ALL: &[Explanation] = &[
    Explanation {
        code: code::UNKNOWN_SKILL,
        title: "A skill that does not exist",
        text: r#"A skill is a folder below `<templates>/skills/`. An unknown one used to give agents an empty folder; here it is an error.

```kdl
skills "poeple"
```

Correct the name, or write the skill."#,
    },
    Explanation {
        code: code::SKILL_WITHOUT_MANIFEST,
        title: "A skill without SKILL.md",
        text: r#"The folder is there, but OpenClaw finds a skill by its `SKILL.md`, so agents would not have it.

```kdl
skills "people"
```

Write `SKILL.md` with a front matter of `name` and `description`."#,
    },
    Explanation {
        code: code::MISSING_TEMPLATE,
        title: "No role template for a level",
        text: r#"Everybody deployed is told their role by `<templates>/roles/<level>.md`, unless they have a `template` of their own. That file does not exist, and an agent without a role is not deployed.

```kdl
environment "local" { target "docker"; deploy "maria.silva" }
```

Write the template for that level."#,
    },
    Explanation {
        code: code::UNKNOWN_IMAGE,
        title: "An image that nobody declared",
        text: r#"An agent, the homeserver, the web client or another image uses an image that the `images` section does not have. Without `image "…"` agents use `agent` and the homeserver `homeserver`.

```kdl
environment "local" { target "docker"; homeserver image="synapze" }
```

Correct the name, or declare the image."#,
    },
    Explanation {
        code: code::EMPTY_IMAGE,
        title: "An image made of nothing",
        text: r#"The image has no base, no layers and no containerfile, so it would hold no file at all.

```kdl
image "agent" { entrypoint "/bin/true" }
```

Give it a `base`, `debian` packages, a `copy`, or a `containerfile`. `base "scratch"` says that an empty start is meant."#,
    },
    Explanation {
        code: code::MIXED_RECIPE,
        title: "A containerfile and nodes in one image",
        text: r#"An image is either built by a container engine from its containerfile, or assembled from nodes without an engine. Nodes beside a containerfile would be ignored.

```kdl
image "agent" {
    containerfile "images/agent/Containerfile"
    env LANG="C.UTF-8"
}
```

Move the nodes into the containerfile, or make a second image that starts from the first with `base image="…"`."#,
    },
    Explanation {
        code: code::BASE_CYCLE,
        title: "Images that start from each other",
        text: r#"Following `base image=` from this image comes back to it, so there is nothing to start from.

```kdl
image "a" { base image="b" }
image "b" { base image="a" }
```

Let one of them start from a reference, from `scratch` or from `debian`."#,
    },
    Explanation {
        code: code::BAD_REFERENCE,
        title: "Not a reference to an image",
        text: r#"A base from outside is written in full, with registry and tag, since short names mean different images on different machines. `fleetctl lock` pins it by digest.

```kdl
image "web" { base "nginx" }
```

Write for instance `docker.io/library/nginx:1.29`. An image of this fleet is `base image="…"`."#,
    },
    Explanation {
        code: code::UNKNOWN_USER,
        title: "A user that the image does not have",
        text: r#"`run-as` names a user that this image does not declare, and there is no base that could have it.

```kdl
image "agent" {
    debian "bookworm" { packages "ca-certificates" }
    run-as "agent"
}
```

Declare it: `user "agent" uid=1000 gid=1000 home="/home/agent"`. A number is taken as it is: `run-as "1000"`."#,
    },
    Explanation {
        code: code::USER_WITHOUT_DEBIAN,
        title: "A user that nothing writes down",
        text: r#"A `debian` layer writes the users of its image into `/etc/passwd` and `/etc/group` and makes their homes. An image without one has nothing that would: the user would be ignored, and a container that is to run as it could not start.

```kdl
image "tool" {
    copy "images/tool" to="/app"
    user "agent" uid=1000
}
```

Declare the user in the image that has the `debian` layer. What runs in an image without accounts needs no name: `run-as "1000"`."#,
    },
    Explanation {
        code: code::NO_ENTRYPOINT,
        title: "An image for agents that starts nothing",
        text: r#"Agents run this image, and neither it nor what it starts from has an entrypoint: its containers would end at once.

```kdl
image "agent" { debian "bookworm" { packages "ca-certificates" } }
```

Add `entrypoint "/usr/local/bin/fleet-agent"`."#,
    },
    Explanation {
        code: code::UNUSABLE_PATH,
        title: "A path that cannot be part of an image",
        text: r#"Below a folder that `copy` or `tree` names stands something that cannot be put into an image: a socket, a pipe or a device; a link that leads out of the folder (of the project, for `copy`) or nowhere; a file that cannot be read; a name that is not UTF-8.

```kdl
image "web" { tree "images/web/site" to="/srv/site" }
```

Remove it, or leave it out with a line in the folder's `.fleetignore`. `tree` keeps links as links, so they must lead to something within the folder; `copy` puts what they lead to in their place."#,
    },
    Explanation {
        code: code::FETCH_URL,
        title: "Not an address that `fetch` takes",
        text: r#"What `fetch` gets is known by its hash, so the address needs no user, password, token or query, and must not have one: `fleet.kdl` is read by many. It is `https`; plain `http` is taken from this machine only. The line is named, and not shown.

```kdl
image "tools" {
    fetch "https://joe:pass@files.example.com/tool" sha256="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08" to="/usr/local/bin/tool"
}
```

Write an address that anybody may read, for instance that of a mirror of yours."#,
    },
    Explanation {
        code: code::NO_SCRIPTS,
        title: "Install scripts of Python packages",
        text: r#"`allow-scripts` lets install scripts of npm packages run. Python packages are taken as wheels only, and unpacking a wheel runs nothing. This is a warning.

```kdl
image "homeserver" {
    debian "bookworm" { packages "python3" }
    pip to="/opt/synapse" python="3.11" { package "matrix-synapse" "1.163.2"; allow-scripts "cryptography" }
}
```

Remove it."#,
    },
    Explanation {
        code: code::CONTAINERFILE_WITHOUT_RUN,
        title: "A containerfile that needs no engine",
        text: r#"Without a RUN step there is nothing for a container engine to do. The same image, declared with `base`, `copy` and `env`, is assembled without one and has the same bytes everywhere. Where every step has a node that says the same, `check` writes the nodes out. This is a warning; the containerfile works too.

```kdl
image "web" { containerfile "images/web/Containerfile" }
```

Declare the steps as nodes, or keep it as it is."#,
    },
    Explanation {
        code: code::UNPINNED,
        title: "An image that nothing pins",
        text: r#"What an image is made of is pinned in `fleet.lock`, so that it is the same tomorrow. A containerfile takes images in ways that cannot be pinned: a `FROM` whose reference is a variable, `COPY --from=` and `RUN --mount=from=` of an image, and `# syntax=`, which has an image read the file.

```dockerfile
ARG VERSION=12
FROM docker.io/library/debian:$VERSION
COPY --from=docker.io/library/busybox:1.37 /bin/busybox /bin/
```

Write references in full, and begin a stage with every image that files are copied from: `FROM docker.io/library/busybox:1.37 AS tools`, then `COPY --from=tools`. `FROM ${BASE}` stands for the image of this fleet that `base image="…"` names. Without `# syntax=` the engine reads the file itself."#,
    },
];
