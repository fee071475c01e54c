//! The stacks against the architecture seed and against the pitfalls of the system that they replace.

use std::collections::{BTreeMap, BTreeSet};

use fleet_objects::StackParameter;
use fleet_stacks::{
    Action, MAX_INLINE_BYTES, Replacement, Settings, Snapshot, TABLE, compare, create_only, data, environment, shared,
};
use serde_json::{Value, json};

use crate::matrix::{document, matrix, of_type, seed, templates};

#[test]
fn rendering_twice_gives_the_same_bytes() {
    for (name, settings) in matrix() {
        assert_eq!(environment(&settings).unwrap(), environment(&settings).unwrap(), "{name}");
    }
}

#[test]
fn every_template_travels_within_a_request_and_has_room_to_grow() {
    for (name, rendered) in templates() {
        assert!(rendered.body.len() <= MAX_INLINE_BYTES, "{name}: {} bytes", rendered.body.len());
        assert!(rendered.resources <= 200, "{name}: {} resources", rendered.resources);
        assert_eq!(rendered.resources, document(&rendered)["Resources"].as_object().unwrap().len());
    }
}

#[test]
fn every_template_says_its_own_hash_and_tags_never_do() {
    for (name, rendered) in templates() {
        let document = document(&rendered);
        assert_eq!(document["Outputs"]["TemplateHash"]["Value"], rendered.hash.to_string(), "{name}");
        assert!(!rendered.tags.values().any(|tag| tag.contains(&rendered.hash.short())), "{name}");
    }
}

/// What the three stacks of the seed's environment are made of. Reviewed as a whole: a changed line is a changed account.
#[test]
fn the_stacks_of_the_seed_are_as_they_were_reviewed() {
    for render in [shared, data, environment] {
        let rendered = render(&seed()).unwrap();
        let mut document = document(&rendered);
        document["Outputs"]["TemplateHash"] = Value::from("of everything else");
        insta::assert_json_snapshot!(rendered.name.clone(), document);
    }
}

#[test]
fn what_cannot_be_made_again_is_retained() {
    let kept =
        ["AWS::EFS::FileSystem", "AWS::SecretsManager::Secret", "AWS::Backup::BackupVault", "AWS::ECR::Repository"];
    for (name, rendered) in templates() {
        for (id, resource) in document(&rendered)["Resources"].as_object().unwrap() {
            let retained = resource["DeletionPolicy"] == "Retain" && resource["UpdateReplacePolicy"] == "Retain";
            let kind = resource["Type"].as_str().unwrap();
            assert_eq!(retained, kept.contains(&kind) || id == "StateBucket", "{name} {id}");
        }
    }
}

#[test]
fn no_image_of_a_generation_can_be_removed_by_a_repository_itself() {
    let rendered = shared(&seed()).unwrap();
    let document = document(&rendered);
    let repositories = of_type(&document, "AWS::ECR::Repository");
    assert_eq!(repositories.len(), seed().images.len());
    for (id, repository) in repositories {
        assert_eq!(repository["ImageTagMutability"], "IMMUTABLE", "{id}");
        assert_eq!(repository["ImageScanningConfiguration"]["ScanOnPush"], true, "{id}");
        let text = repository["LifecyclePolicy"]["LifecyclePolicyText"].as_str().unwrap();
        let rules: Value = serde_json::from_str(text).unwrap();
        let rules = rules["rules"].as_array().unwrap();
        let first = rules.iter().min_by_key(|rule| rule["rulePriority"].as_u64()).unwrap();
        assert_eq!(first["selection"]["tagPrefixList"][0], "d-");
        assert!(first["selection"]["countNumber"].as_u64() > Some(100_000), "more than a repository can hold");
        assert!(rules.iter().all(|rule| rule == first || rule["selection"]["tagStatus"] == "untagged"));
    }
}

#[test]
fn a_single_writer_never_runs_twice_and_a_bad_deployment_rolls_back() {
    for (name, rendered) in templates() {
        for (id, service) in of_type(&document(&rendered), "AWS::ECS::Service") {
            let deployment = &service["DeploymentConfiguration"];
            let breaker = &deployment["DeploymentCircuitBreaker"];
            assert_eq!(
                (&breaker["Enable"], &breaker["Rollback"]),
                (&Value::from(true), &Value::from(true)),
                "{name} {id}"
            );
            if ["HomeserverService", "ManagerService"].contains(&id) {
                assert_eq!(
                    (&deployment["MinimumHealthyPercent"], &deployment["MaximumPercent"]),
                    (&Value::from(0), &Value::from(100))
                );
                assert_eq!(service["AvailabilityZoneRebalancing"], "DISABLED", "rebalancing starts a second one first");
            }
            assert_eq!(
                service["NetworkConfiguration"]["AwsvpcConfiguration"]["AssignPublicIp"], "DISABLED",
                "{name} {id}"
            );
        }
    }
}

#[test]
fn services_wait_for_every_mount_target() {
    let document = document(&environment(&Settings { zones: 3, ..seed() }).unwrap());
    let after: BTreeSet<_> = document["Resources"]["HomeserverService"]["DependsOn"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert_eq!(after, BTreeSet::from(["MountTargetA", "MountTargetB", "MountTargetC"]));
}

#[test]
fn nothing_but_declared_connections_pass() {
    let document = document(&environment(&seed()).unwrap());
    let end =
        |rule: &Value, side: &str| rule[side]["Fn::GetAtt"][0].as_str().unwrap().trim_end_matches("Group").to_owned();
    let passes: BTreeSet<String> = of_type(&document, "AWS::EC2::SecurityGroupIngress")
        .iter()
        .map(|(_, rule)| {
            format!("{} → {}:{}", end(rule, "SourceSecurityGroupId"), end(rule, "GroupId"), rule["FromPort"])
        })
        .collect();
    assert_eq!(
        passes.into_iter().collect::<Vec<_>>(),
        [
            "Agent → Endpoints:443",
            "Agent → Files:2049",
            "Agent → Homeserver:6167",
            "Bastion → Endpoints:443",
            "Bastion → Homeserver:6167",
            "Bastion → Web:8080",
            "Homeserver → Endpoints:443",
            "Homeserver → Files:2049",
            "Manager → Endpoints:443",
            "Manager → Homeserver:6167",
            "Web → Endpoints:443",
        ]
    );
    for (id, group) in of_type(&document, "AWS::EC2::SecurityGroup") {
        assert!(group["SecurityGroupIngress"].is_null(), "{id} lets in addresses");
        assert!(
            group["SecurityGroupEgress"].as_array().is_some_and(|rules| !rules.is_empty()),
            "{id} has AWS's own rule"
        );
        let open = group["SecurityGroupEgress"].as_array().unwrap().iter().any(|rule| rule["IpProtocol"] == "-1");
        assert!(!open, "{id}");
    }
}

#[test]
fn no_task_mounts_the_root_of_the_file_system() {
    for (name, rendered) in templates() {
        for (id, task) in of_type(&document(&rendered), "AWS::ECS::TaskDefinition") {
            for volume in task["Volumes"].as_array().into_iter().flatten() {
                let efs = &volume["EFSVolumeConfiguration"];
                assert_eq!(efs["AuthorizationConfig"]["IAM"], "ENABLED", "{name} {id}");
                assert!(efs["AuthorizationConfig"]["AccessPointId"].is_object(), "{name} {id}");
                assert_eq!(efs["TransitEncryption"], "ENABLED", "{name} {id}");
            }
        }
    }
}

#[test]
fn secrets_are_read_by_ecs_and_are_in_no_variable() {
    for (name, rendered) in templates() {
        for (id, task) in of_type(&document(&rendered), "AWS::ECS::TaskDefinition") {
            for container in task["ContainerDefinitions"].as_array().unwrap() {
                for secret in container["Secrets"].as_array().into_iter().flatten() {
                    // The manager alone has the fleet secret: one key of what the data stack made.
                    let from = match id {
                        "ManagerTask" => &secret["ValueFrom"]["Fn::Join"][1],
                        _ => &secret["ValueFrom"],
                    };
                    let allowed = match id {
                        "ManagerTask" => *from == json!([{"Ref": "FleetSecretArn"}, ":secret::"]),
                        _ => from.as_str().unwrap().contains(":parameter/anycompany/dev/homeserver/"),
                    };
                    assert!(allowed, "{name} {id}: {from}");
                }
                for variable in container["Environment"].as_array().into_iter().flatten() {
                    let variable = variable["Name"].as_str().unwrap();
                    assert!(
                        !["SECRET", "TOKEN", "PASSWORD", "KEY"].iter().any(|word| variable.contains(word)),
                        "{variable}"
                    );
                }
            }
        }
        assert!(!rendered.body.contains("{{resolve:"), "{name}");
    }
}

/// The pitfall of `latest`: a machine image that is looked up at deploy time replaces the bastion at any deploy.
#[test]
fn the_bastions_image_is_pinned_and_nothing_gets_in() {
    let rendered = environment(&seed()).unwrap();
    assert_eq!(rendered.parameters["BastionImage"], StackParameter::MachineImage);
    let document = document(&rendered);
    assert_eq!(document["Parameters"]["BastionImage"]["Type"], "AWS::EC2::Image::Id");
    let (_, bastion) = of_type(&document, "AWS::EC2::Instance")[0];
    assert_eq!(bastion["MetadataOptions"]["HttpTokens"], "required");
    assert!(bastion["KeyName"].is_null() && bastion["UserData"].is_null());
}

#[test]
fn the_table_has_the_types_that_we_render_and_no_others() {
    let mut rendered = BTreeSet::new();
    for (_, template) in templates() {
        let resources = document(&template)["Resources"].clone();
        rendered.extend(resources.as_object().unwrap().values().map(|r| r["Type"].as_str().unwrap().to_owned()));
    }
    let table: Vec<String> = TABLE.iter().map(|row| row.kind.to_owned()).collect();
    assert_eq!(rendered.into_iter().collect::<Vec<_>>(), table);
    assert!(create_only("AWS::SNS::Topic").is_none());
}

#[test]
fn room_for_more_agents_replaces_the_private_subnets_and_a_plan_says_so() {
    let none = BTreeMap::new();
    let [small, large] = [9, 1001].map(|agents| document(&environment(&Settings { agents, ..seed() }).unwrap()));
    let snapshot = |template| Snapshot { template, parameters: &none };
    let changes = compare(snapshot(&large), snapshot(&small));
    let replaced: BTreeSet<&str> =
        changes.iter().filter(|c| c.replacement == Replacement::Always).map(|c| c.id.as_str()).collect();
    assert!(
        replaced.contains("PrivateSubnetA") && replaced.contains("MountTargetB") && replaced.contains("Bastion"),
        "{replaced:?}"
    );
    assert!(!replaced.contains("Vpc") && !replaced.contains("Cluster") && !replaced.contains("HomeserverService"));
    assert!(changes.iter().all(|change| change.action == Action::Modify && !change.touches_data()), "{changes:?}");
}

#[test]
fn another_size_of_the_homeserver_changes_its_task_and_its_service_only() {
    let none = BTreeMap::new();
    let mut larger = seed();
    larger.homeserver.size.memory_mib = 4096;
    let [old, new] = [seed(), larger].map(|settings| document(&environment(&settings).unwrap()));
    let snapshot = |template| Snapshot { template, parameters: &none };
    let seen: Vec<_> = compare(snapshot(&new), snapshot(&old)).into_iter().map(|c| (c.id, c.replacement)).collect();
    assert_eq!(
        seen,
        [("HomeserverService".to_owned(), Replacement::Never), ("HomeserverTask".to_owned(), Replacement::Always)]
    );
}

#[test]
fn two_environments_of_a_fleet_share_repositories_and_no_name() {
    let other = Settings { environment: "production".to_owned(), ..seed() };
    assert_eq!(shared(&seed()).unwrap(), shared(&other).unwrap());
    let names = |settings: &Settings| {
        let mut names = BTreeSet::new();
        for rendered in [data(settings).unwrap(), environment(settings).unwrap()] {
            for (id, resource) in document(&rendered)["Resources"].as_object().unwrap() {
                let named = resource["Properties"].as_object().into_iter().flatten();
                let unique = |key: &str| key.ends_with("Name") && key != "ServiceName" && key != "MetricName";
                names.extend(
                    named
                        .filter(|(key, v)| unique(key) && v.is_string() && id != "HomeserverName" && *key != "Name")
                        .map(|(_, v)| v.to_string()),
                );
            }
        }
        names
    };
    let both: Vec<_> = names(&seed()).intersection(&names(&other)).cloned().collect();
    assert_eq!(both, Vec::<String>::new());
}
