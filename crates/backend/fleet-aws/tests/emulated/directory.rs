//! The org directory as an object that agents look at.

use std::collections::BTreeMap;

use fleet_apply::{Applied, Provider, ProviderError, Ready};
use fleet_aws::{DirectoryProvider, emulator::Fault};
use fleet_derivation::Hash;
use fleet_model::{Address, Kind};
use fleet_plan::{Change, Desired, DirectorySpec, Observed, directory};
use fleet_sim::contract::{change, is_right};
use fleet_stacks::{data, environment, shared};

use crate::world::{CHANGED, UNCHANGED, World, secrets};

fn provider(world: &World) -> DirectoryProvider {
    DirectoryProvider::new(world.account.clone(), world.scope())
}

fn document(text: &str) -> Desired {
    let image = Address::new(Kind::Image, "homeserver");
    Desired::Directory(DirectorySpec { document: text.to_owned(), image, image_hash: Hash::of(b"image") })
}

/// An account with the stacks of an environment, and its directory.
struct Directory {
    world: World,
    provider: DirectoryProvider,
}

impl Directory {
    async fn new() -> Self {
        let world = World::new().await;
        for stack in [shared, data, environment] {
            world.apply(&stack(&world.settings()).unwrap()).await.unwrap();
        }
        Self { provider: provider(&world), world }
    }

    async fn seen(&self) -> Option<Observed> {
        self.provider.observe(&[]).await.unwrap().objects.remove(&directory::address())
    }

    /// The change that a planner makes of what is there now.
    async fn planned(&self, wanted: Option<&Desired>) -> Change {
        change(&directory::address(), self.seen().await.as_ref(), wanted)
    }

    /// What came of a change, and how often that wrote to the bucket.
    async fn carry_out(&self, change: &Change) -> (Result<Applied, ProviderError>, usize) {
        let (secrets, outputs) = (secrets(), BTreeMap::new());
        let before = self.world.asked().await.len();
        let ready = Ready { outputs: &outputs, secrets: &secrets };
        let applied = self.provider.apply(change, &ready, &*self.world.heard).await;
        let asked = self.world.asked().await.split_off(before);
        let writes = asked.iter().filter(|asked| ["PUT", "DELETE", "POST"].iter().any(|verb| asked.starts_with(verb)));
        (applied, writes.count())
    }

    /// The same of one that is carried out.
    async fn done(&self, change: &Change) -> (Applied, usize) {
        let (applied, writes) = self.carry_out(change).await;
        (applied.unwrap(), writes)
    }

    /// A change that is refused, since something else is there by now; nothing is written.
    async fn is_stale(&self, change: &Change) -> bool {
        let (refused, writes) = self.carry_out(change).await;
        matches!(refused, Err(ProviderError::Stale { .. })) && writes == 0
    }

    async fn object(&self) -> String {
        let outputs = self.world.account.outputs_of(&self.world.scope(), "dev").await.unwrap();
        format!("/{}/{}", outputs["ConfigBucket"], directory::OBJECT)
    }
}

#[tokio::test]
async fn a_directory_is_made_changed_and_removed_by_one_write_each_and_never_against_the_plan() {
    let it = Directory::new().await;
    let [first, second, third] = ["first", "second", "third"].map(document);
    let made = it.planned(Some(&first)).await;
    assert_eq!(it.done(&made).await, (CHANGED, 1));
    assert!(is_right(it.seen().await.as_ref(), &made));
    assert_eq!(it.done(&it.planned(Some(&first)).await).await, (UNCHANGED, 0));

    let old = it.planned(Some(&third)).await;
    let changed = it.planned(Some(&second)).await;
    assert_eq!(it.done(&changed).await, (CHANGED, 1));
    assert!(is_right(it.seen().await.as_ref(), &changed));
    assert!(it.is_stale(&old).await);

    let old = it.planned(Some(&third)).await;
    assert_eq!(it.done(&it.planned(None).await).await, (CHANGED, 1));
    assert_eq!(it.seen().await, None);
    assert!(it.is_stale(&old).await);
    assert_eq!(it.done(&it.planned(None).await).await, (UNCHANGED, 0));
}

#[tokio::test]
async fn an_answer_that_is_lost_and_its_repetition_are_one_version() {
    let it = Directory::new().await;
    let wanted = document("everybody");
    let made = it.planned(Some(&wanted)).await;
    let lost = format!("PUT {}", it.object().await);
    it.world.emulator.answer_badly(&[(&lost, Fault::Lose)]).await.unwrap();
    assert_eq!(it.done(&made).await, (CHANGED, 2), "the repetition finds it there");
    assert!(is_right(it.seen().await.as_ref(), &made));
    assert_eq!(it.done(&it.planned(Some(&wanted)).await).await, (UNCHANGED, 0));
}

#[tokio::test]
async fn without_its_stack_a_directory_is_not_there_and_cannot_be_made() {
    let world = World::new().await;
    let (provider, secrets, outputs) = (provider(&world), secrets(), BTreeMap::new());
    assert_eq!(provider.observe(&[]).await.unwrap().objects.len(), 0);
    let made = change(&directory::address(), None, Some(&document("everybody")));
    let ready = Ready { outputs: &outputs, secrets: &secrets };
    let refused = provider.apply(&made, &ready, &*world.heard).await.unwrap_err();
    let ProviderError::Failed { why, help, .. } = &refused else { panic!("{refused:?}") };
    assert_eq!(why, "the config bucket of anycompany-dev is not there");
    assert_eq!(help.as_deref(), Some("apply the whole environment: stack/dev has it"));
    let gone = change(&directory::address(), None, None);
    assert_eq!(provider.apply(&gone, &ready, &*world.heard).await.unwrap(), UNCHANGED);
}
