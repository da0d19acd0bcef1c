//! The conformance suite on the fake, and on the client over a real ttrpc server.

use vc_agent::conformance;
use vc_agent::fake::{FakeAgent, Left};
use vc_agent::{Agent, Connect, Connector};

use crate::fixture::FakeFixture;
use crate::peer::generous;
use crate::served::Served;

async fn meets_all(agent: &impl Agent, model: &FakeAgent) {
    let mut met = Vec::new();
    conformance::all(agent, &FakeFixture, |obligation| {
        println!("{obligation}");
        met.push(obligation);
        let left = model.left();
        assert_eq!((left.containers, left.mounts), (vec![], vec![]), "after {obligation}");
    })
    .await;
    assert_eq!(met.len(), conformance::COUNT);
    assert_eq!(model.left(), Left::default());
}

#[tokio::test]
async fn the_fake_meets_its_obligations() {
    let agent = FakeFixture::agent();
    meets_all(&agent, &agent).await;
}

#[tokio::test]
async fn the_client_meets_its_obligations_over_a_real_server() {
    let model = FakeFixture::agent();
    let served = Served::new(model.clone()).await;
    let client = Connector::default().connect(&served.address(), generous()).await.unwrap();
    meets_all(&client, &model).await;
}
