//! Environments: what each code means.

use super::Explanation;
use crate::code;

pub(crate) const ALL: &[Explanation] = &[
    Explanation {
        code: code::UNKNOWN_ENVIRONMENT,
        title: "An environment that does not exist",
        text: r#"`extends` names an environment that is not declared.

```kdl
environment "local" extends="dve"
```

Correct the name."#,
    },
    Explanation {
        code: code::EXTENDS_CYCLE,
        title: "Environments that extend each other",
        text: r#"Following `extends` comes back to where it started.

```kdl
environment "a" extends="b"
environment "b" extends="a"
```

Let one of them stand alone."#,
    },
    Explanation {
        code: code::MATCHES_NOBODY,
        title: "A selector that matches nobody",
        text: r#"`deploy` with attributes picks everybody to whom all of them apply, and that is nobody, or only humans. A deployment of nobody is not what was meant.

```kdl
environment "local" { target "docker"; deploy department="Legal" levels="vp" }
```

Check the attributes against `fleetctl show`. A whole environment without agents simply has no `deploy`."#,
    },
    Explanation {
        code: code::DEPLOYS_HUMAN,
        title: "A human cannot be deployed",
        text: r#"`human` declares a real person: they have an account and are in rooms, and no agent runs under their name.

```kdl
human "maria.silva" level="ceo"
environment "local" { target "docker"; deploy "maria.silva" }
```

Remove the id from `deploy`, or declare a `person` if an agent is meant."#,
    },
    Explanation {
        code: code::ABSENT_MANAGER,
        title: "An agent whose manager has no account",
        text: r#"Agents are told to whom they report and to write there when they are blocked. In this environment the manager is neither deployed nor a human, so there is no such account and nobody reads it. This is a warning.

```kdl
org {
    person "ana.costa" level="vp" reports-to="maria.silva"
    person "rui.lima" level="ic" reports-to="ana.costa"
}
environment "local" { target "docker"; deploy "rui.lima" }
```

Deploy the manager too, or declare the manager as a `human`."#,
    },
    Explanation {
        code: code::OVER_LIMIT,
        title: "More agents than the limit",
        text: r#"`limits agents=` is a promise about cost. The selectors of this environment pick more people than it allows.

```kdl
environment "local" { target "docker"; deploy "*"; limits agents=10 }
```

Deploy fewer, or raise the limit if the cost is meant."#,
    },
    Explanation {
        code: code::BAD_SIZE,
        title: "A size that Fargate does not have",
        text: r"On AWS, CPU and memory come in fixed pairs. On the docker target any size from 64 CPU units and 128 MiB works.

```kdl
size cpu=1024 memory-mib=1000
```

Use one of the pairs that the help lists.",
    },
    Explanation {
        code: code::LITTLE_MEMORY,
        title: "Little memory for an agent",
        text: r"OpenClaw runs on Node and needs about 1024 MiB. With less, the container may be killed in the middle of an answer. This is a warning.

```kdl
size cpu=256 memory-mib=512
```

Give it 1024 MiB or more.",
    },
    Explanation {
        code: code::PORT_CONFLICT,
        title: "Two services on one port",
        text: r#"The homeserver and the web client of one environment publish their ports on 127.0.0.1, and both want the same one.

```kdl
homeserver port=8080
web image="element"
```

Give one of them another `port=`. Built in are 6167 and 8080."#,
    },
    Explanation {
        code: code::BAD_REGISTRY,
        title: "Not a registry",
        text: r#"`registry` names where images are pushed: a host, a port if it needs one, and a path in lower case if repositories lie below one. No scheme, no user, no tag; credentials come from the machine's own configuration.

```kdl
environment "cloud" { registry "https://Registry.Example.com/Fleets" }
```

Write `registry "registry.example.com/fleets"` or `registry "127.0.0.1:5000"`."#,
    },
    Explanation {
        code: code::NO_EFFECT,
        title: "A node that does nothing on this target",
        text: r#"`network`, `logs`, `backup`, `compute`, `credentials`, `ingress` and `tenant` describe AWS. An environment with `target "docker"` does not use them. This is a warning.

```kdl
environment "local" { target "docker"; network azs=2 }
```

Remove the node, or move it to the environment on AWS."#,
    },
    Explanation {
        code: code::SHARED_SECRET,
        title: "Every agent can act as everybody",
        text: r#"With `credentials "fleet-secret"` the container of every agent gets the fleet secret, and `fleet-agent` derives its password from it. Whoever breaks out of one agent can then derive the password of every account, the operator's among them. This is a warning.

```kdl
environment "cloud" { credentials "fleet-secret" }
```

Remove the node, or write `credentials "own-password"`, which is built in: each agent gets a parameter with its own password only."#,
    },
];
