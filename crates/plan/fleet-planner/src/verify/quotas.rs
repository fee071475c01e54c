//! Is there enough of what AWS gives an account only so much of?

use fleet_plan::verify::{Facts, Finding, Seen, Verdict};
use fleet_stacks::{
    demand::{Demand, MAX_TASK_BYTES},
    quota::{Quota, Share},
};

use super::{Needs, unseen};

/// Findings about quotas, addresses and sizes.
pub(super) fn judge(needs: &Needs<'_>, facts: &Facts) -> Vec<Finding> {
    let (demand, deployed) = (needs.demand(), deployed(needs, facts));
    let wanted = Quota::ALL.into_iter().filter(|quota| demand.count(*quota) > 0);
    let mut found: Vec<Finding> =
        wanted.map(|quota| quota_of(quota, (&demand, &deployed), facts, needs.region)).collect();
    found.extend(addresses(&demand));
    found.extend(task_size(&demand));
    found
}

/// What this environment takes already: it is among what is used, and among what is needed. What could not be seen counts as
/// somebody else's, which errs on the safe side.
fn deployed(needs: &Needs<'_>, facts: &Facts) -> Demand {
    let stacks = facts.deployed.as_ref().ok();
    let templates = stacks.into_iter().flatten().map(|(_, template)| template.as_str());
    let there = facts.agents.as_ref().ok();
    let agents = needs.agents.iter().filter(|(name, _)| there.is_some_and(|there| there.contains(**name)));
    let mut demand = Demand::of(templates, agents.map(|(name, agent)| (*name, *agent)));
    // Agents that are no longer declared have their service, task and role all the same.
    let former = there.into_iter().flatten().filter(|name| !needs.agents.contains_key(name.as_str())).count() as u64;
    for quota in [Quota::NetworkInterfaces, Quota::Roles, Quota::Services] {
        *demand.counts.entry(quota).or_default() += former;
    }
    demand
}

fn quota_of(quota: Quota, (demand, deployed): (&Demand, &Demand), facts: &Facts, region: &str) -> Finding {
    let what = quota.what();
    let needed = demand.count(quota);
    let limit = match facts.limits.get(&quota) {
        Some(Ok(limit)) => *limit,
        Some(Err(why)) => return unseen(what, why).needs(format!("{needed}")),
        None => return Finding::new(Verdict::Unseen, what, "was not looked at").needs(format!("{needed}")),
    };
    let others = others(quota, facts.used.get(&quota), deployed.count(quota));
    let (taken, said) = match &others {
        Others::Own => (0, String::new()),
        Others::Counted(others) => (*others, format!(", {others} taken by others")),
        Others::Uncounted => (0, ", what others take is not counted".to_owned()),
        Others::Unseen(why) => (0, format!(", what others take could not be looked at: {why}")),
    };
    let found = format!("{limit} there{said}");
    if taken.saturating_add(needed) <= limit {
        return Finding::new(Verdict::Ok, what, found).needs(format!("{needed}"));
    }
    Finding::new(Verdict::Failed, what, found).needs(format!("{needed}")).remedy(ask_for(
        quota,
        taken.saturating_add(needed),
        region,
    ))
}

enum Others {
    /// The quota is of something that is the environment's own.
    Own,
    Counted(u64),
    Uncounted,
    Unseen(String),
}

fn others(quota: Quota, used: Option<&Seen<u64>>, own: u64) -> Others {
    match (quota.share(), used) {
        (Share::Own, _) => Others::Own,
        (Share::Account, Some(Ok(used))) => Others::Counted(used.saturating_sub(own)),
        (Share::Account, Some(Err(unseen))) => Others::Unseen(unseen.why.clone()),
        (Share::Account, None) => Others::Uncounted,
    }
}

/// What to ask AWS for, in words and as a command.
fn ask_for(quota: Quota, value: u64, region: &str) -> String {
    let Some((service, code, name)) = quota.code() else {
        return format!(
            "AWS does not raise it: divide the fleet into environments with at most {} agents",
            quota.fixed().unwrap_or(value)
        );
    };
    // IAM's quotas are kept in one region of a partition.
    let region = if quota == Quota::Roles { "us-east-1" } else { region };
    format!(
        "ask AWS for {value} of \"{name}\" ({code}) in Service Quotas: `aws service-quotas request-service-quota-increase --service-code {service} --quota-code {code} --desired-value {value} --region {region}`"
    )
}

fn addresses(demand: &Demand) -> Vec<Finding> {
    let one = |(name, subnet): (&String, &fleet_stacks::demand::Subnet)| {
        let what = format!("addresses of {name}");
        let found = format!("{} there, in {}", subnet.addresses, subnet.cidr);
        let fits = subnet.needed <= subnet.addresses;
        let finding = Finding::new(if fits { Verdict::Ok } else { Verdict::Failed }, what, found);
        let finding = finding.needs(subnet.needed.to_string());
        if fits {
            finding
        } else {
            finding.remedy("raise `limits agents`, or give `network` a larger `cidr`, before the first apply")
        }
    };
    demand.subnets.iter().map(one).collect()
}

fn task_size(demand: &Demand) -> Option<Finding> {
    let (agent, bytes) = demand.largest_task.as_ref()?;
    let what = "task definitions";
    let needed = format!("{bytes} bytes, of agent/{agent}");
    let found = format!("{MAX_TASK_BYTES} bytes each");
    Some(if *bytes <= MAX_TASK_BYTES {
        Finding::new(Verdict::Ok, what, found).needs(needed)
    } else {
        Finding::new(Verdict::Failed, what, found)
            .needs(needed)
            .remedy("AWS does not raise it: give the agent fewer secrets or variables")
    })
}
