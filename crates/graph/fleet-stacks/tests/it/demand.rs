//! What an environment takes of its account, counted in what is rendered for it.

use std::collections::BTreeMap;

use fleet_stacks::{
    Settings,
    agent_service::{AgentPlan, agent_service},
    data,
    demand::Demand,
    environment,
    quota::Quota,
    shared,
};

use crate::{agents::container, matrix::seed};

fn rendered(settings: &Settings) -> Vec<String> {
    [shared, data, environment].map(|render| render(settings).unwrap().body).into()
}

#[test]
fn the_stacks_of_the_seed_take_what_is_in_them() {
    let templates = rendered(&seed());
    let demand = Demand::of(templates.iter().map(String::as_str), []);
    // Five endpoints in two subnets, NAT, bastion, two mount targets, and tasks: the web client's twice while it is rolled.
    let interfaces = 5 * 2 + 1 + 1 + 2 + 1 + 2 + 1;
    let expected = BTreeMap::from([
        (Quota::Vpcs, 1),
        (Quota::InternetGateways, 1),
        (Quota::ElasticIps, 1),
        (Quota::NetworkInterfaces, interfaces),
        (Quota::InterfaceEndpoints, 5),
        (Quota::Services, 3),
        (Quota::OnDemandCpus, 2),
        (Quota::Roles, 9),
        (Quota::AccessPoints, 1),
    ]);
    assert_eq!(demand.counts, expected);
    assert_eq!((demand.subnets["PublicSubnetA"].needed, demand.subnets["PublicSubnetB"].needed), (1, 0));
    let private = &demand.subnets["PrivateSubnetA"];
    assert_eq!((private.addresses, private.needed, private.cidr.as_str()), (251, 5 + 1 + 1 + 2, "10.0.10.0/24"));
}

#[test]
fn each_agent_takes_a_service_a_role_an_access_point_an_address_and_its_processor() {
    let templates = rendered(&seed());
    let agent = |spot| {
        let plan = AgentPlan { agent: "aaron.phillips", container: container(), spot, models: [].into() };
        agent_service(&seed(), plan)
    };
    let (on_demand, spot) = (agent(false), agent(true));
    let names: Vec<String> = (0..10).map(|number| format!("a{number}")).collect();
    let agents = names.iter().enumerate().map(|(at, name)| (name.as_str(), if at < 4 { &spot } else { &on_demand }));
    let without = Demand::of(templates.iter().map(String::as_str), []);
    let with = Demand::of(templates.iter().map(String::as_str), agents);
    for quota in [Quota::Services, Quota::Roles, Quota::AccessPoints, Quota::NetworkInterfaces] {
        assert_eq!(with.count(quota) - without.count(quota), 10, "{quota}");
    }
    let units = |count: u64| count * u64::from(container().size.cpu);
    assert_eq!(with.count(Quota::SpotCpus), units(4).div_ceil(1024));
    assert_eq!(with.count(Quota::OnDemandCpus), (1024 + 2 * 256 + 256 + units(6)).div_ceil(1024));
    let needed = |demand: &Demand| demand.subnets["PrivateSubnetB"].needed;
    assert_eq!(needed(&with) - needed(&without), 5, "they are spread over two zones");
    assert_eq!(with.largest_task.unwrap().1, on_demand.task.len());
}

#[test]
fn a_fleet_of_a_thousand_has_the_addresses_that_it_was_given_room_for() {
    let settings = Settings { agents: 1001, ..seed() };
    let plan = AgentPlan { agent: "a", container: container(), spot: true, models: [].into() };
    let agent = agent_service(&settings, plan);
    let (templates, names) = (rendered(&settings), (0..1001).map(|n| n.to_string()).collect::<Vec<_>>());
    let demand = Demand::of(templates.iter().map(String::as_str), names.iter().map(|name| (name.as_str(), &agent)));
    assert!(demand.subnets.values().all(|subnet| subnet.needed <= subnet.addresses), "{:#?}", demand.subnets);
}
