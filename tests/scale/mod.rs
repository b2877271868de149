//! The number of cloud calls does not grow with the number of nodes. `cargo bench --bench scale`
//! measures thousands of nodes.

pub(crate) mod simulate;

use simulate::{INTERVAL, SECRETS, Simulation};

#[tokio::test(start_paused = true)]
async fn polls_do_not_grow_with_the_nodes() {
    for nodes in [3, 12] {
        let cluster = Simulation::start(nodes, 20).await;
        cluster.settle().await;
        for _ in 0..3 {
            let calls = cluster.calls_within(INTERVAL).await;
            assert_eq!(calls.polls, SECRETS, "{nodes} nodes");
            assert_eq!(calls.values, 0, "{nodes} nodes");
        }
        let change = cluster.change_one().await;
        assert_eq!(change.values, nodes, "one per node");
        assert!(change.most_in_a_second <= 20, "{}", change.most_in_a_second);
    }
}
