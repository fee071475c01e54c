//! [`complete`]: OpenClaw's configuration from the bundle, with what only this container knows.
//!
//! The bundle decides what the agent is; this decides how it runs here: addresses, tokens, no calls home.

use std::path::{Path, PathBuf};

use fleet_secret::{NotText, Secret};
use serde_json::{Map, Value, json};

use crate::{login::Session, settings::Settings};

/// Where the image has its plugins, one folder each.
const PLUGINS: &str = "/opt/fleet/plugins";

/// Folder and id of the plugin that offers the tool `people`.
const PEOPLE: (&str, &str) = ("people", "fleet-people");

/// The final `openclaw.json`.
///
/// # Errors
/// When the access token is not text.
pub fn complete(bundle: &Value, settings: &Settings, session: &Session, gateway: &Secret) -> Result<Value, NotText> {
    let mut config = bundle.clone();
    for (path, value) in [
        ("gateway/mode", json!("local")),
        ("gateway/bind", json!("loopback")),
        ("gateway/port", json!(settings.gateway_port)),
        ("gateway/auth", json!({"mode": "token", "token": gateway.expose_str()?})),
        ("gateway/controlUi/enabled", json!(false)),
        // What would leave the fleet's network without anybody having asked for it.
        ("update/checkOnStart", json!(false)),
        ("models/catalogRefresh/enabled", json!(false)),
        ("discovery/mdns/mode", json!("off")),
        ("agents/defaults/workspace", json!(settings.workspace_dir)),
        ("agents/defaults/skipBootstrap", json!(true)),
        ("channels/matrix/homeserver", json!(settings.homeserver)),
        ("channels/matrix/userId", json!(session.user)),
        ("channels/matrix/deviceId", json!(session.device)),
        ("channels/matrix/accessToken", json!(session.token.expose_str()?)),
    ] {
        *at(&mut config, path) = value;
    }
    for (path, value) in [
        // Otherwise tools hide behind a search tool and a model seldom finds `people`.
        ("tools/toolSearch", json!(false)),
        // OpenClaw's own skills are about itself; an empty list would mean all of them.
        ("skills/allowBundled", json!(["none"])),
    ] {
        let place = at(&mut config, path);
        if place.is_null() {
            *place = value;
        }
    }
    add_plugins(&mut config, settings, &installed(Path::new(PLUGINS)));
    Ok(config)
}

/// Folders below `root` that hold a plugin, in name order.
fn installed(root: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    let mut plugins: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(|path| path.join("openclaw.plugin.json").is_file()).collect();
    plugins.sort();
    plugins
}

fn add_plugins(config: &mut Value, settings: &Settings, plugins: &[PathBuf]) {
    let paths = at(config, "plugins/load/paths");
    if paths.is_null() {
        *paths = json!(plugins);
    }
    if plugins.iter().any(|path| path.file_name().is_some_and(|name| name == PEOPLE.0)) {
        let endpoint = format!("http://127.0.0.1:{}/people", settings.tool_port);
        *at(config, &format!("plugins/entries/{}", PEOPLE.1)) =
            json!({"enabled": true, "config": {"endpoint": endpoint}});
    }
}

/// The value at a path of keys; what is missing or not an object on the way becomes one.
fn at<'a>(config: &'a mut Value, path: &str) -> &'a mut Value {
    path.split('/').fold(config, |value, key| {
        if !value.is_object() {
            *value = Value::Object(Map::new());
        }
        &mut value[key]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::homeserver::Homeserver;

    fn completed(bundle: Value) -> Value {
        let text = r#"{"schema":1,"matrix_id":"@a:b.c","homeserver":"http://homeserver:6167","command":["/bin/true"]}"#;
        let settings: Settings = serde_json::from_str(text).unwrap();
        let session = Session {
            homeserver: Homeserver::new("http://homeserver:6167"),
            user: "@a:b.c".try_into().unwrap(),
            device: "FLEETAGENT".to_owned(),
            token: Secret::new("matrix-token"),
        };
        complete(&bundle, &settings, &session, &Secret::new("gateway-token")).unwrap()
    }

    #[test]
    fn tokens_and_addresses_are_added_and_the_rest_stays() {
        let config = completed(json!({
            "agents": {"defaults": {"model": {"primary": "local/m"}}},
            "channels": {"matrix": {"autoJoin": "always", "accessToken": "of another"}},
            "tools": {"toolSearch": true},
        }));
        assert_eq!(config["agents"]["defaults"]["model"]["primary"], "local/m");
        assert_eq!(config["agents"]["defaults"]["workspace"], "/data/workspace");
        assert_eq!(config["channels"]["matrix"]["accessToken"], "matrix-token");
        assert_eq!(config["channels"]["matrix"]["autoJoin"], "always");
        assert_eq!(config["gateway"]["auth"]["token"], "gateway-token");
        assert_eq!(config["tools"]["toolSearch"], true, "the bundle's word wins");
        assert_eq!(config["skills"]["allowBundled"][0], "none");
    }

    #[test]
    fn plugins_of_the_image_are_loaded_and_people_is_told_where_to_ask() {
        let folder = tempfile::tempdir().unwrap();
        let plugin = folder.path().join("people");
        std::fs::create_dir(&plugin).unwrap();
        std::fs::create_dir(folder.path().join("empty")).unwrap();
        std::fs::write(plugin.join("openclaw.plugin.json"), "{}").unwrap();
        let found = installed(folder.path());
        assert_eq!(found, [plugin]);
        let mut config = json!({});
        let text = r#"{"schema":1,"matrix_id":"@a:b.c","homeserver":"http://h","command":["/bin/true"],"tool_port":7}"#;
        add_plugins(&mut config, &serde_json::from_str(text).unwrap(), &found);
        assert_eq!(config["plugins"]["entries"]["fleet-people"]["config"]["endpoint"], "http://127.0.0.1:7/people");
    }
}
