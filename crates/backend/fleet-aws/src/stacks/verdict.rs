//! [`more_than_planned`]: does a change set replace or remove what the plan did not show?

use std::collections::BTreeSet;

use aws_sdk_cloudformation::types::{
    ChangeAction, ChangeSource, EvaluationType, Replacement as Replaces, RequiresRecreation, ResourceChange,
};
use fleet_stacks::{Action, Replacement, ResourceChange as Planned};

/// In words, what the change set does beyond the plan: resources that it removes, replaces or may replace, and the plan
/// leaves in place. `None`: nothing. Less than planned is no surprise: the plan says "perhaps" where only AWS knows.
pub(super) fn more_than_planned(changes: &[ResourceChange], planned: &[Planned]) -> Option<String> {
    let staying = staying(changes);
    let surprises: Vec<String> = changes.iter().filter_map(|change| surprise(change, planned, &staying)).collect();
    if surprises.is_empty() {
        return None;
    }
    Some(format!("the change set does more than the plan: {}; nothing was changed", surprises.join(", ")))
}

fn surprise(change: &ResourceChange, planned: &[Planned], staying: &BTreeSet<&str>) -> Option<String> {
    let id = change.logical_resource_id().unwrap_or_default();
    let expected = planned.iter().find(|planned| planned.id == id);
    let removed = expected.is_some_and(|planned| planned.action == Action::Remove);
    let replaced = expected.is_some_and(|planned| planned.replacement != Replacement::Never);
    match (change.action(), change.replacement()) {
        (Some(ChangeAction::Remove), _) if !removed => Some(format!("it removes {id}")),
        (Some(ChangeAction::Remove | ChangeAction::Add), _) => None,
        (_, Some(Replaces::True)) if !replaced => Some(format!("it replaces {id}")),
        (_, Some(Replaces::Conditional)) if !replaced && !staying.contains(id) => Some(format!("it may replace {id}")),
        (Some(ChangeAction::Modify), _) => None,
        // Dynamic, Import and whatever comes: not asked for.
        (action, _) if expected.is_none() => {
            Some(format!("it does {} with {id}", action.map_or("something", ChangeAction::as_str)))
        }
        _ => None,
    }
}

/// Resources that stay where they are. CloudFormation says "perhaps" of whatever uses an attribute of a resource that is
/// changed in any way, for the attribute might be another one then. Those that our templates use, ARNs and ids, are others
/// only after a replacement.
fn staying(changes: &[ResourceChange]) -> BTreeSet<&str> {
    let id = |change: &'_ ResourceChange| change.logical_resource_id().map(str::to_owned).unwrap_or_default();
    let mut staying: BTreeSet<String> =
        changes.iter().filter(|change| change.replacement() == Some(&Replaces::False)).map(id).collect();
    loop {
        let more: Vec<String> = changes
            .iter()
            .filter(|change| change.replacement() == Some(&Replaces::Conditional) && !staying.contains(&id(change)))
            .filter(|change| only_uses(change, &staying))
            .map(id)
            .collect();
        if more.is_empty() {
            break;
        }
        staying.extend(more);
    }
    changes.iter().filter_map(|change| change.logical_resource_id()).filter(|id| staying.contains(*id)).collect()
}

/// Is it "perhaps" only because of attributes of resources that stay?
fn only_uses(change: &ResourceChange, staying: &BTreeSet<String>) -> bool {
    let never = Some(&RequiresRecreation::Never);
    let mut causes = change
        .details()
        .iter()
        .filter(|detail| detail.target().and_then(|target| target.requires_recreation()) != never)
        .peekable();
    causes.peek().is_some()
        && causes.all(|detail| {
            let cause = detail.causing_entity().and_then(|entity| entity.split('.').next()).unwrap_or_default();
            detail.evaluation() == Some(&EvaluationType::Dynamic)
                && detail.change_source() == Some(&ChangeSource::ResourceAttribute)
                && staying.contains(cause)
        })
}

#[cfg(test)]
mod tests {
    use aws_sdk_cloudformation::types::{ResourceChangeDetail, ResourceTargetDefinition};
    use fleet_stacks::Data;

    use super::*;

    fn change(id: &str, action: ChangeAction, replaces: Option<Replaces>) -> ResourceChange {
        ResourceChange::builder().logical_resource_id(id).action(action).set_replacement(replaces).build()
    }

    /// May be replaced, for an attribute of another resource.
    fn dependent(id: &str, source: ChangeSource, cause: &str) -> ResourceChange {
        let target = ResourceTargetDefinition::builder().requires_recreation(RequiresRecreation::Always).build();
        let detail = ResourceChangeDetail::builder()
            .target(target)
            .evaluation(EvaluationType::Dynamic)
            .change_source(source)
            .causing_entity(cause)
            .build();
        ResourceChange::builder()
            .logical_resource_id(id)
            .action(ChangeAction::Modify)
            .replacement(Replaces::Conditional)
            .details(detail)
            .build()
    }

    fn planned(id: &str, action: Action, replacement: Replacement) -> Planned {
        let (kind, properties) = ("AWS::EC2::Subnet".to_owned(), BTreeSet::new());
        Planned { id: id.to_owned(), kind, action, replacement, data: Data::Untouched, properties }
    }

    #[test]
    fn what_the_plan_shows_is_no_surprise() {
        let changes = [
            change("Gone", ChangeAction::Remove, None),
            change("New", ChangeAction::Add, None),
            change("Task", ChangeAction::Modify, Some(Replaces::True)),
            change("Perhaps", ChangeAction::Modify, Some(Replaces::Conditional)),
            change("Logs", ChangeAction::Modify, Some(Replaces::False)),
        ];
        let plan = [
            planned("Gone", Action::Remove, Replacement::Never),
            planned("Task", Action::Modify, Replacement::Always),
            planned("Perhaps", Action::Modify, Replacement::Always),
        ];
        assert_eq!(more_than_planned(&changes, &plan), None);
    }

    #[test]
    fn removing_or_replacing_anything_else_stops_it() {
        let plan = [planned("Files", Action::Modify, Replacement::Never)];
        for (surprise, words) in [
            (change("Files", ChangeAction::Remove, None), "removes Files"),
            (change("Files", ChangeAction::Modify, Some(Replaces::True)), "replaces Files"),
            (change("Files", ChangeAction::Modify, Some(Replaces::Conditional)), "may replace Files"),
            (change("Other", ChangeAction::Remove, None), "removes Other"),
            (change("Other", ChangeAction::Dynamic, None), "Dynamic with Other"),
        ] {
            let why = more_than_planned(&[surprise], &plan).expect("a surprise");
            assert!(why.contains(words), "{why}");
        }
    }

    #[test]
    fn what_uses_an_attribute_of_something_that_stays_stays_too() {
        let logs = || change("Logs", ChangeAction::Modify, Some(Replaces::False));
        let role = || dependent("Role", ChangeSource::ResourceAttribute, "Logs.Arn");
        let task = dependent("Task", ChangeSource::ResourceAttribute, "Role.Arn");
        assert_eq!(more_than_planned(&[task.clone(), role(), logs()], &[]), None, "whatever the order");

        let moved = change("Logs", ChangeAction::Modify, Some(Replaces::Conditional));
        let plan = [planned("Logs", Action::Modify, Replacement::Perhaps)];
        let why = more_than_planned(&[task, role(), moved], &plan).expect("a surprise");
        assert!(why.contains("may replace Task, it may replace Role"), "{why}");

        let parameter = dependent("Role", ChangeSource::ParameterReference, "Logs");
        assert!(more_than_planned(&[parameter, logs()], &[]).is_some(), "a parameter is another matter");
    }
}
