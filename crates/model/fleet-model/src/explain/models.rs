//! Model providers: what each code means.

use super::Explanation;
use crate::code;

pub(crate) const ALL: &[Explanation] = &[
    Explanation {
        code: code::UNKNOWN_PROVIDER,
        title: "A model provider that nobody declared",
        text: r#"Models are named `provider/model`, and the part before the slash is a provider of the `models` section.

```kdl
model "olama/llama3.1"
```

Correct the name, or declare the provider with its kind and address."#,
    },
    Explanation {
        code: code::UNKNOWN_MODEL,
        title: "A model that its provider does not list",
        text: r#"An OpenAI-compatible provider lists the models that it serves, since OpenClaw must know their context size. This one is not listed.

```kdl
model "ollama/lama3.1"
```

Correct the name, or add `model "…" context=… max-tokens=…` to the provider."#,
    },
    Explanation {
        code: code::BAD_MODEL_NAME,
        title: "A model without its provider",
        text: r#"The same model may be served by several providers, so its name starts with the provider.

```kdl
model "llama3.1"
```

Write `provider/model`. Only the first slash separates: `openrouter/meta/llama` is the model `meta/llama`."#,
    },
    Explanation {
        code: code::NO_MODEL,
        title: "An agent without a model",
        text: r#"Neither the environment, the person, the department nor the defaults of the organisation choose a model for somebody who is deployed.

```kdl
org { person "maria.silva" level="ceo" }
environment "local" { target "docker"; deploy "maria.silva" }
```

Add `model "provider/model"` to `org { defaults { … } }`."#,
    },
    Explanation {
        code: code::BAD_URL,
        title: "Not the base URL of a model server",
        text: r#"The URL must start with `http://` or `https://` and name a host, without a query and without credentials. The line is not shown, since people paste keys into URLs.

```kdl
provider "ollama" kind="openai" base-url="localhost:11434"
```

Write for instance `http://127.0.0.1:11434/v1`. Loopback means the host that runs the containers."#,
    },
    Explanation {
        code: code::NOT_A_SECRET_NAME,
        title: "A secret where its name belongs",
        text: r#"`api-key` is the name of the environment variable that holds the key when you run `fleetctl`, never the key itself: `fleet.kdl` is in version control. The line is not shown.

```kdl
provider "ollama" kind="openai" base-url="http://127.0.0.1:11434/v1" api-key="my key"
```

Write a name such as `OPENAI_API_KEY`. If a real key stood here, replace it at its provider: history keeps it."#,
    },
];
