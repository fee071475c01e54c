//! [`compare`]: what CloudFormation would do to a deployed stack to make it the rendered one, before it is asked.
//!
//! Deliberately absent: the change set itself, which `apply` compares with this.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{create_only::create_only, template::references};

/// A template with the values of its parameters.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot<'a> {
    /// The template.
    pub template: &'a Value,
    /// Parameters by id.
    pub parameters: &'a BTreeMap<String, String>,
}

/// What happens to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// It is made.
    Add,
    /// It is changed.
    Modify,
    /// It leaves the stack.
    Remove,
}

/// Is another resource put in its place?
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Replacement {
    /// No.
    Never,
    /// AWS decides by what else is set.
    Perhaps,
    /// Yes.
    Always,
}

/// What happens to what the resource holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Data {
    /// It holds nothing, or stays where it is.
    Untouched,
    /// It stays, but outside of the stack; the stack goes on with an empty one or none.
    LeftBehind,
    /// It is gone.
    Lost,
}

/// One resource that would change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceChange {
    /// Its logical id.
    pub id: String,
    /// For instance `AWS::EC2::Subnet`.
    pub kind: String,
    /// What happens.
    pub action: Action,
    /// Whether another takes its place.
    pub replacement: Replacement,
    /// What happens to what it holds.
    pub data: Data,
    /// Properties that differ, as far down as both are objects: `RootDirectory/Path`.
    pub properties: BTreeSet<String>,
}

impl ResourceChange {
    /// Does it lose or leave behind what it holds?
    #[must_use]
    pub fn touches_data(&self) -> bool {
        self.data != Data::Untouched
    }
}

/// Types whose resources hold what cannot be made again.
const HOLDERS: [&str; 6] = [
    "AWS::Backup::BackupVault",
    "AWS::ECR::Repository",
    "AWS::EFS::FileSystem",
    "AWS::Logs::LogGroup",
    "AWS::S3::Bucket",
    "AWS::SecretsManager::Secret",
];

/// Every resource that would change, by logical id. What only follows from the replacement of another one is in it too.
#[must_use]
pub fn compare(rendered: Snapshot<'_>, deployed: Snapshot<'_>) -> Vec<ResourceChange> {
    let none = serde_json::Map::new();
    let resources =
        |snapshot: Snapshot<'_>| snapshot.template["Resources"].as_object().cloned().unwrap_or_else(|| none.clone());
    let (new, old) = (resources(rendered), resources(deployed));
    let moved = moved_parameters(rendered, deployed);
    let mut changes: BTreeMap<String, ResourceChange> = BTreeMap::new();
    for (id, resource) in &new {
        let change = match old.get(id) {
            None => Some(change(id, resource, Action::Add)),
            Some(before) => modification(id, before, resource, &moved),
        };
        changes.extend(change.map(|change| (id.clone(), change)));
    }
    for (id, resource) in old.iter().filter(|(id, _)| !new.contains_key(*id)) {
        changes.insert(id.clone(), change(id, resource, Action::Remove));
    }
    cascade(&new, &old, &mut changes);
    for change in changes.values_mut() {
        change.data = fate(change, old.get(&change.id));
    }
    changes.into_values().collect()
}

fn change(id: &str, resource: &Value, action: Action) -> ResourceChange {
    ResourceChange {
        id: id.to_owned(),
        kind: resource["Type"].as_str().unwrap_or_default().to_owned(),
        action,
        replacement: Replacement::Never,
        data: Data::Untouched,
        properties: BTreeSet::new(),
    }
}

/// Parameters whose value is another one now, or that are declared otherwise.
fn moved_parameters(rendered: Snapshot<'_>, deployed: Snapshot<'_>) -> BTreeSet<String> {
    let ids = rendered.parameters.keys().chain(deployed.parameters.keys());
    ids.filter(|id| rendered.parameters.get(*id) != deployed.parameters.get(*id)).cloned().collect()
}

fn modification(id: &str, before: &Value, after: &Value, moved: &BTreeSet<String>) -> Option<ResourceChange> {
    let mut change = change(id, after, Action::Modify);
    if before["Type"] != after["Type"] {
        // CloudFormation refuses this under one logical id; what would have to happen is a replacement.
        change.replacement = Replacement::Always;
        return Some(change);
    }
    differences(&before["Properties"], &after["Properties"], "", &mut change.properties);
    change.properties.extend(reached(&after["Properties"], moved));
    change.replacement = by_table(&change.kind, &change.properties);
    // A policy on deletion changes nothing outside of the stack, but CloudFormation lists it.
    let policies = ["DeletionPolicy", "UpdateReplacePolicy"].into_iter().filter(|name| before[*name] != after[*name]);
    change.properties.extend(policies.map(str::to_owned));
    (!change.properties.is_empty()).then_some(change)
}

/// Paths below `path` at which two values differ.
fn differences(before: &Value, after: &Value, path: &str, into: &mut BTreeSet<String>) {
    if before == after {
        return;
    }
    let (Value::Object(old), Value::Object(new)) = (before, after) else {
        into.insert(path.to_owned());
        return;
    };
    let intrinsic =
        |fields: &serde_json::Map<String, Value>| fields.keys().any(|key| key == "Ref" || key.starts_with("Fn::"));
    if !path.is_empty() && (intrinsic(old) || intrinsic(new)) {
        into.insert(path.to_owned());
        return;
    }
    for key in old.keys().chain(new.keys()).collect::<BTreeSet<_>>() {
        let below = if path.is_empty() { key.clone() } else { format!("{path}/{key}") };
        differences(old.get(key).unwrap_or(&Value::Null), new.get(key).unwrap_or(&Value::Null), &below, into);
    }
}

/// Top-level properties that refer to one of `ids`.
fn reached(properties: &Value, ids: &BTreeSet<String>) -> Vec<String> {
    let refers = |value: &Value| {
        let mut used = BTreeSet::new();
        references(value, &mut used);
        !used.is_disjoint(ids)
    };
    let fields = properties.as_object().into_iter().flatten();
    fields.filter(|(_, value)| refers(value)).map(|(name, _)| name.clone()).collect()
}

/// A type that is not in the table may be replaced by anything.
fn by_table(kind: &str, properties: &BTreeSet<String>) -> Replacement {
    let Some(table) = create_only(kind) else { return Replacement::Perhaps };
    let touches = |paths: &[&str]| {
        properties.iter().any(|changed| paths.iter().any(|path| within(changed, path) || within(path, changed)))
    };
    match () {
        () if touches(table.always) => Replacement::Always,
        () if touches(table.perhaps) => Replacement::Perhaps,
        () => Replacement::Never,
    }
}

/// Is `path` at or below `at`?
fn within(path: &str, at: &str) -> bool {
    path.strip_prefix(at).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A resource in another's place has another id: everything that refers to it changes too, and may be replaced for that.
fn cascade(
    new: &serde_json::Map<String, Value>,
    old: &serde_json::Map<String, Value>,
    changes: &mut BTreeMap<String, ResourceChange>,
) {
    loop {
        let replaced: BTreeSet<String> =
            changes.values().filter(|change| change.replacement != Replacement::Never).map(|c| c.id.clone()).collect();
        let mut grew = false;
        for (id, resource) in new.iter().filter(|(id, _)| old.contains_key(*id)) {
            let reached = reached(&resource["Properties"], &replaced);
            if reached.is_empty() {
                continue;
            }
            let entry = changes.entry(id.clone()).or_insert_with(|| change(id, resource, Action::Modify));
            let before = (entry.properties.len(), entry.replacement);
            entry.properties.extend(reached);
            entry.replacement = entry.replacement.max(by_table(&entry.kind, &entry.properties));
            grew |= before != (entry.properties.len(), entry.replacement);
        }
        if !grew {
            return;
        }
    }
}

/// What happens to what a resource held: its own policies decide, as they were deployed.
fn fate(change: &ResourceChange, deployed: Option<&Value>) -> Data {
    let Some(deployed) = deployed.filter(|resource| HOLDERS.contains(&resource["Type"].as_str().unwrap_or_default()))
    else {
        return Data::Untouched;
    };
    let policy = match (change.action, change.replacement) {
        (Action::Remove, _) => "DeletionPolicy",
        (Action::Modify, Replacement::Always | Replacement::Perhaps) => "UpdateReplacePolicy",
        _ => return Data::Untouched,
    };
    match deployed[policy].as_str() {
        Some("Retain" | "RetainExceptOnCreate") => Data::LeftBehind,
        _ => Data::Lost,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    type Parameters = BTreeMap<String, String>;

    fn one(id: &str, resource: Value) -> Value {
        json!({"Resources": {id: resource}})
    }

    fn plan(rendered: &Value, deployed: &Value) -> Vec<ResourceChange> {
        let none = Parameters::new();
        let snapshot = |template| Snapshot { template, parameters: &none };
        compare(snapshot(rendered), snapshot(deployed))
    }

    fn network(cidr: &str, zone: &str) -> Value {
        json!({"Resources": {
            "Vpc": {"Type": "AWS::EC2::VPC", "Properties": {"CidrBlock": cidr}},
            "Subnet": {"Type": "AWS::EC2::Subnet", "Properties": {"VpcId": {"Ref": "Vpc"}, "AvailabilityZone": zone}},
            "Web": {"Type": "AWS::ECS::Service", "Properties": {"ServiceName": "web", "NetworkConfiguration": {
                "AwsvpcConfiguration": {"Subnets": [{"Ref": "Subnet"}]},
            }}},
        }})
    }

    #[test]
    fn the_same_template_changes_nothing() {
        assert_eq!(plan(&network("10.0.0.0/16", "a"), &network("10.0.0.0/16", "a")), []);
    }

    #[test]
    fn a_replaced_resource_replaces_what_is_made_from_it_and_changes_what_only_uses_it() {
        let changes = plan(&network("10.1.0.0/16", "a"), &network("10.0.0.0/16", "a"));
        let seen: Vec<_> = changes.iter().map(|c| (c.id.as_str(), c.action, c.replacement)).collect();
        assert_eq!(
            seen,
            [
                ("Subnet", Action::Modify, Replacement::Always),
                ("Vpc", Action::Modify, Replacement::Always),
                ("Web", Action::Modify, Replacement::Never),
            ]
        );
    }

    #[test]
    fn replacing_or_removing_what_holds_data_says_what_becomes_of_it() {
        let files = |retain: bool, encrypted: bool| {
            let policy = retain.then_some("Retain");
            one(
                "Files",
                json!({
                    "Type": "AWS::EFS::FileSystem", "Properties": {"Encrypted": encrypted},
                    "DeletionPolicy": policy, "UpdateReplacePolicy": policy,
                }),
            )
        };
        assert_eq!(plan(&files(true, true), &files(true, false))[0].data, Data::LeftBehind);
        assert_eq!(plan(&files(false, true), &files(false, false))[0].data, Data::Lost);
        assert_eq!(plan(&files(true, true), &files(false, false))[0].data, Data::Lost, "deployed policies count");
        let gone = &plan(&json!({"Resources": {}}), &files(true, true))[0];
        assert_eq!((gone.action, gone.data, gone.touches_data()), (Action::Remove, Data::LeftBehind, true));
        let made = &plan(&files(true, true), &json!({"Resources": {}}))[0];
        assert_eq!((made.action, made.touches_data()), (Action::Add, false));
    }

    #[test]
    fn a_parameters_new_value_reaches_what_refers_to_it() {
        let template = one(
            "Bastion",
            json!({
                "Type": "AWS::EC2::Instance", "Properties": {"ImageId": {"Ref": "Image"}, "InstanceType": "t3.micro"},
            }),
        );
        let value = |image: &str| Parameters::from([("Image".to_owned(), image.to_owned())]);
        let (new, old) = (value("ami-2"), value("ami-1"));
        let snapshot = |parameters| Snapshot { template: &template, parameters };
        let changes = compare(snapshot(&new), snapshot(&old));
        assert_eq!((changes.len(), changes[0].replacement), (1, Replacement::Always));
        assert_eq!(changes[0].properties, BTreeSet::from(["ImageId".to_owned()]));
    }

    #[test]
    fn a_part_of_a_property_is_judged_by_its_own_row() {
        let point = |path: &str| {
            one(
                "Point",
                json!({
                    "Type": "AWS::EFS::AccessPoint", "Properties": {"RootDirectory": {"Path": path}},
                }),
            )
        };
        assert_eq!(plan(&point("/b"), &point("/a"))[0].replacement, Replacement::Always);
        let kind =
            |kind: &str| one("Bastion", json!({"Type": "AWS::EC2::Instance", "Properties": {"InstanceType": kind}}));
        assert_eq!(plan(&kind("t3.small"), &kind("t3.micro"))[0].replacement, Replacement::Perhaps);
        let foreign = |name: &str| one("Topic", json!({"Type": "AWS::SNS::Topic", "Properties": {"TopicName": name}}));
        assert_eq!(plan(&foreign("b"), &foreign("a"))[0].replacement, Replacement::Perhaps, "not in the table");
    }
}
