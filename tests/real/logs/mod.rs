//! Output of processes on a live fleet: of many at once, and of a host that is gone.

mod many;
mod shipped;

use std::collections::BTreeMap;

/// A Deployment of shells that count as far as `to`, a number each `pause` seconds, and then wait.
fn counting(name: &str, replicas: u32, (to, pause): (u32, &str)) -> String {
    format!(
        "apiVersion: ostler/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  rollout: {{bake: 0s}}
  template:
    spec:
      command:
        - /bin/sh
        - -c
        - |
          trap 'exit 0' TERM
          n=0
          while [ $n -lt {to} ]; do n=$((n+1)); echo $n; sleep {pause}; done
          while :; do sleep 1 & wait; done
"
    )
}

/// The numbers in lines `NAME | NUMBER`, by name.
fn numbers(text: &str) -> BTreeMap<String, Vec<u32>> {
    let mut all: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for (name, number) in text.lines().filter_map(|line| line.split_once(" | ")) {
        all.entry(name.to_owned()).or_default().extend(number.parse::<u32>().ok());
    }
    all
}
