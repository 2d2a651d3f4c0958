use std::sync::Arc;

use tokio::time::{Duration, sleep};

use super::*;

fn clock() -> Arc<SimClock> {
    SimClock::new(Gate::new(), Timestamp(1_000_000))
}

#[tokio::test(start_paused = true)]
async fn a_fast_clock_sleeps_shorter() {
    let clock = clock();
    clock.set_rate_ppm(1_000_000);
    let started = Instant::now();
    clock.sleep_until(Mono(2_000)).await;
    assert_eq!(started.elapsed(), Duration::from_secs(1));
    assert_eq!(clock.now(), Now { mono: Mono(2_000), wall: Timestamp(1_002_000) });
}

#[tokio::test(start_paused = true)]
async fn a_stopped_clock_goes_on_where_it_stood() {
    let clock = clock();
    let waits = Arc::clone(&clock);
    let task = tokio::spawn(async move { waits.sleep_until(Mono(1_000)).await });
    sleep(Duration::from_millis(400)).await;
    clock.suspend();
    sleep(Duration::from_secs(60)).await;
    assert!(!task.is_finished());
    assert_eq!(clock.now().mono, Mono(400));
    clock.wake(ResumeOrder::TimersFirst);
    let started = Instant::now();
    task.await.expect("the sleeper ends");
    assert_eq!(started.elapsed(), Duration::from_millis(600));
}

#[tokio::test(start_paused = true)]
async fn a_paused_gate_holds_timers_back_while_the_reading_goes_on() {
    let clock = clock();
    clock.gate().pause();
    let waits = Arc::clone(&clock);
    let task = tokio::spawn(async move { waits.sleep_until(Mono(1_000)).await });
    sleep(Duration::from_secs(60)).await;
    assert!(!task.is_finished());
    assert_eq!(clock.now().mono, Mono(60_000));
    clock.gate().resume(ResumeOrder::TimersFirst);
    let started = Instant::now();
    task.await.expect("the sleeper ends");
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn the_order_after_a_pause_is_the_callers() {
    for (order, first) in [(ResumeOrder::TimersFirst, "timer"), (ResumeOrder::BacklogFirst, "port")] {
        let gate = Gate::new();
        gate.pause();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (g, s) = (gate.clone(), Arc::clone(&seen));
        let port = tokio::spawn(async move {
            g.ports().await;
            s.lock().expect("not poisoned").push("port");
        });
        let (g, s) = (gate.clone(), Arc::clone(&seen));
        let timer = tokio::spawn(async move {
            g.timers().await;
            s.lock().expect("not poisoned").push("timer");
        });
        sleep(Duration::from_secs(1)).await;
        gate.resume(order);
        port.await.expect("passes");
        timer.await.expect("passes");
        assert_eq!(seen.lock().expect("not poisoned")[0], first);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_passes_a_crashed_gate() {
    let clock = clock();
    clock.gate().crash();
    clock.gate().resume(ResumeOrder::TimersFirst);
    let slept = tokio::time::timeout(Duration::from_secs(3600), clock.sleep_until(Mono(1))).await;
    assert!(slept.is_err());
}
