//! Settings of every kind, and the templates that they give.

use std::collections::BTreeSet;

use fleet_model::model::{HomeserverKind, Size};
use fleet_stacks::{Bootstrap, Homeserver, Manager, Rendered, Settings, Web, bootstrap, data, environment, shared};
use serde_json::Value;

/// Environment `dev` of the architecture seed.
pub fn seed() -> Settings {
    Settings {
        fleet: "anycompany".to_owned(),
        environment: "dev".to_owned(),
        domain: "anycompany.corp".to_owned(),
        account: "111122223333".to_owned(),
        region: "us-east-1".to_owned(),
        images: ["agent", "conduit", "element", "homeserver", "manager"].map(str::to_owned).into(),
        cidr: "10.0.0.0/16".parse().unwrap(),
        zones: 2,
        nat_gateways: 1,
        agents: 9,
        arm: false,
        homeserver: Homeserver {
            image: "conduit".to_owned(),
            kind: HomeserverKind::Conduit,
            size: Size { cpu: 1024, memory_mib: 2048 },
        },
        web: Some(Web { image: "element".to_owned(), size: Size { cpu: 256, memory_mib: 512 } }),
        manager: Some(Manager {
            image: "manager".to_owned(),
            program: Some("/usr/local/bin/fleetctl".to_owned()),
            size: Size { cpu: 256, memory_mib: 512 },
        }),
        agents_get_fleet_secret: false,
        log_days: 7,
        backup_days: Some(7),
    }
}

/// A repository's workflows in the account of [`seed`].
pub fn account() -> Bootstrap {
    Bootstrap {
        fleet: "anycompany".to_owned(),
        account: "111122223333".to_owned(),
        region: "us-east-1".to_owned(),
        repository: "anycompany/fleet".to_owned(),
        environments: BTreeSet::from(["dev".to_owned(), "production".to_owned()]),
        provider: None,
    }
}

/// Every kind of fleet, by what is different from [`seed`].
pub fn matrix() -> Vec<(String, Settings)> {
    let synapse = Homeserver { image: "homeserver".to_owned(), kind: HomeserverKind::Synapse, ..seed().homeserver };
    let mut all: Vec<(String, Settings)> = vec![
        ("seed".to_owned(), seed()),
        ("1001-agents".to_owned(), Settings { agents: 1001, ..seed() }),
        ("no-web".to_owned(), Settings { web: None, ..seed() }),
        ("no-manager".to_owned(), Settings { manager: None, ..seed() }),
        ("fleet-secret".to_owned(), Settings { agents_get_fleet_secret: true, manager: None, ..seed() }),
        ("no-backup".to_owned(), Settings { backup_days: None, ..seed() }),
        ("synapse-on-arm".to_owned(), Settings { homeserver: synapse, arm: true, ..seed() }),
        ("small-network".to_owned(), Settings { cidr: "172.31.16.0/20".parse().unwrap(), ..seed() }),
        ("europe".to_owned(), Settings { region: "eu-central-1".to_owned(), ..seed() }),
        (
            "bare".to_owned(),
            Settings {
                zones: 1,
                nat_gateways: 0,
                web: None,
                manager: None,
                backup_days: None,
                images: ["a".to_owned()].into(),
                ..seed()
            },
        ),
    ];
    for zones in 1..=3 {
        for nat_gateways in [0, 1, zones] {
            let settings = Settings { zones, nat_gateways, agents: 1001, ..seed() };
            all.push((format!("{zones}-zones-{nat_gateways}-nat"), settings));
        }
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all.dedup_by(|a, b| a.0 == b.0);
    all
}

/// Every template of the matrix, by what it is of and its stack.
pub fn templates() -> Vec<(String, Rendered)> {
    let mut all = Vec::new();
    for (what, settings) in matrix() {
        for render in [shared, data, environment] {
            let rendered = render(&settings).unwrap();
            all.push((format!("{what}.{}", rendered.name), rendered));
        }
    }
    let provider = Some("arn:aws:iam::111122223333:oidc-provider/token.actions.githubusercontent.com".to_owned());
    all.push(("new.bootstrap".to_owned(), bootstrap(&account()).unwrap()));
    all.push(("adopted.bootstrap".to_owned(), bootstrap(&Bootstrap { provider, ..account() }).unwrap()));
    all
}

/// A template as a document.
pub fn document(rendered: &Rendered) -> Value {
    serde_json::from_str(&rendered.body).unwrap()
}

/// Resources of one type, by logical id.
pub fn of_type<'d>(document: &'d Value, kind: &str) -> Vec<(&'d str, &'d Value)> {
    let resources = document["Resources"].as_object().unwrap();
    resources.iter().filter(|(_, r)| r["Type"] == kind).map(|(id, r)| (id.as_str(), &r["Properties"])).collect()
}
