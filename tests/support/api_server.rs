//! As much of a Kubernetes API server as the provider reads: SecretProviderClasses (get, list,
//! watch), ServiceAccounts (get) and Events (create). The cluster test has a real one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::broadcast;

type Name = (String, String);

#[derive(Default)]
struct Objects {
    revision: u64,
    classes: BTreeMap<Name, Value>,
    accounts: BTreeMap<Name, Value>,
    /// Status with which every request is answered, if any.
    broken: Option<u16>,
    /// Whether edits of classes are kept from watchers, as a slow API server would.
    watch_held: bool,
    account_reads: usize,
    events: Vec<Value>,
}

/// A running server; ends with the runtime.
#[derive(Clone)]
pub(crate) struct ApiServer {
    objects: Arc<Mutex<Objects>>,
    events: broadcast::Sender<Value>,
    /// Where it listens.
    pub(crate) url: String,
}

impl ApiServer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = Self {
            objects: Arc::default(),
            events: broadcast::channel(64).0,
            url,
        };
        let router = axum::Router::new()
            .route(
                "/apis/secrets-store.csi.x-k8s.io/v1/secretproviderclasses",
                get(list_classes),
            )
            .route(
                "/apis/secrets-store.csi.x-k8s.io/v1/namespaces/{ns}/secretproviderclasses/{name}",
                get(get_class),
            )
            .route(
                "/api/v1/namespaces/{ns}/serviceaccounts/{name}",
                get(get_account),
            )
            .route(
                "/apis/events.k8s.io/v1/namespaces/{ns}/events",
                post(create_event),
            )
            .with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        server
    }

    /// How a provider reaches it.
    pub(crate) fn config(&self) -> kube::Config {
        let mut config = kube::Config::new(self.url.parse().unwrap());
        config.default_retry = false;
        config
    }

    pub(crate) fn put_class(
        &self,
        namespace: &str,
        name: &str,
        parameters: &BTreeMap<String, String>,
    ) {
        let mut objects = self.objects.lock().unwrap();
        objects.revision += 1;
        let class = json!({
            "apiVersion": "secrets-store.csi.x-k8s.io/v1", "kind": "SecretProviderClass",
            "metadata": {"namespace": namespace, "name": name, "resourceVersion": objects.revision.to_string()},
            "spec": {"provider": "cce", "parameters": parameters},
        });
        objects
            .classes
            .insert((namespace.into(), name.into()), class.clone());
        if !objects.watch_held {
            // Nobody may be watching yet.
            let _ = self
                .events
                .send(json!({"type": "MODIFIED", "object": class}));
        }
    }

    pub(crate) fn put_account(&self, namespace: &str, name: &str, annotation: Option<&str>) {
        let annotations = annotation.map(|text| json!({"cce.io/dew-resource": text}));
        let account = json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"namespace": namespace, "name": name, "annotations": annotations},
        });
        self.objects
            .lock()
            .unwrap()
            .accounts
            .insert((namespace.into(), name.into()), account);
    }

    /// Answers everything with this status from now on.
    pub(crate) fn set_broken(&self, status: Option<u16>) {
        self.objects.lock().unwrap().broken = status;
    }

    pub(crate) fn hold_watch(&self) {
        self.objects.lock().unwrap().watch_held = true;
    }

    /// Events that were written, as they were created.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.objects.lock().unwrap().events.clone()
    }

    pub(crate) fn account_reads(&self) -> usize {
        self.objects.lock().unwrap().account_reads
    }
}

async fn list_classes(
    State(server): State<ApiServer>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    let (items, revision) = {
        let objects = server.objects.lock().unwrap();
        if let Some(status) = objects.broken {
            return refusal(status);
        }
        (
            objects.classes.values().cloned().collect::<Vec<_>>(),
            objects.revision,
        )
    };
    if query.get("watch").map(String::as_str) == Some("true") {
        let events = stream::unfold(server.events.subscribe(), |mut events| async {
            let event = events.recv().await.ok()?;
            Some((
                Ok::<_, std::io::Error>(Bytes::from(format!("{event}\n"))),
                events,
            ))
        });
        return Body::from_stream(events.boxed()).into_response();
    }
    Json(json!({
        "apiVersion": "secrets-store.csi.x-k8s.io/v1", "kind": "SecretProviderClassList",
        "metadata": {"resourceVersion": revision.to_string()}, "items": items,
    }))
    .into_response()
}

async fn get_class(State(server): State<ApiServer>, Path(name): Path<Name>) -> Response {
    let objects = server.objects.lock().unwrap();
    one(objects.broken, objects.classes.get(&name))
}

async fn get_account(State(server): State<ApiServer>, Path(name): Path<Name>) -> Response {
    let mut objects = server.objects.lock().unwrap();
    objects.account_reads += 1;
    one(objects.broken, objects.accounts.get(&name))
}

async fn create_event(State(server): State<ApiServer>, Json(event): Json<Value>) -> Response {
    server.objects.lock().unwrap().events.push(event.clone());
    (StatusCode::CREATED, Json(event)).into_response()
}

fn one(broken: Option<u16>, object: Option<&Value>) -> Response {
    match (broken, object) {
        (Some(status), _) => refusal(status),
        (None, Some(object)) => Json(object.clone()).into_response(),
        (None, None) => refusal(404),
    }
}

fn refusal(code: u16) -> Response {
    let reason = match code {
        404 => "NotFound",
        403 => "Forbidden",
        _ => "InternalError",
    };
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure",
        "reason": reason, "message": reason, "code": code, "metadata": {},
    });
    (StatusCode::from_u16(code).unwrap(), Json(status)).into_response()
}
