"""Checks of systemd-test: what `onChange` of a ConfigFile does to units of the host, over systemd's own bus."""

from systemd_host import NODE, until

UNIT = """\
[Service]
ExecStart=/bin/sh -c 'echo start >> /run/rig-acts; exec sleep 100000'
ExecReload=/bin/sh -c 'echo reload >> /run/rig-acts'
"""
STUBBORN = """\
[Service]
ExecStart=/bin/sleep 100000
ExecReload=/bin/false
"""
MANIFEST = """\
apiVersion: ostler/v1
kind: ConfigFile
metadata: {{name: {name}}}
spec:
  path: /etc/{name}.conf
  nodeSelector: {{}}
  content: "{content}\\n"
  onChange: [{actions}]
  rollout: {{waves: [100%], bake: 0s, onFailure: pause}}
"""


class Units:
    def acts(self):
        return self.host.run("cat", "/run/rig-acts", check=False).split()

    def push(self, name, content, actions):
        self.host.write(MANIFEST.format(name=name, content=content, actions=actions), "/root/units.yaml")
        self.host.ostler("apply", "-f", "/root/units.yaml")
        until(f"/etc/{name}.conf has it", lambda: self.host.run("cat", f"/etc/{name}.conf", check=False) == content)

    def said(self, name):
        """What its node says of a file."""
        return self.host.ostler("config", "status", name, "-o", "json")

    def units(self):
        """A unit is reloaded and restarted once for each change; one that is stopped stays so; a failure is told."""
        for name, text in (("rig-web", UNIT), ("rig-stubborn", STUBBORN)):
            self.host.write(text, f"/etc/systemd/system/{name}.service")
        self.host.run("systemctl", "daemon-reload")
        self.host.run("systemctl", "start", "rig-web", "rig-stubborn")
        until("the unit has started", lambda: self.acts() == ["start"])
        before = self.host.main_pid("rig-web")
        self.push("rig-web", "one", "{reload: {unit: rig-web.service}}")
        until("it is reloaded", lambda: self.acts() == ["start", "reload"])
        self.expect("by a reload alone", self.host.main_pid("rig-web") == before)
        until("and the node has the version", lambda: "InSync" in self.said("rig-web"))
        self.push("rig-web", "two", "{restart: {unit: rig-web.service}}")
        until("it is restarted", lambda: self.acts() == ["start", "reload", "start"])
        until("and the node has this version", lambda: self.host.main_pid("rig-web") not in (0, before) and "InSync" in self.said("rig-web"))
        self.host.run("systemctl", "stop", "rig-web")
        self.push("rig-web", "three", "{reload: {unit: rig-web.service}}, {restart: {unit: rig-web.service}}, {restart: {unit: rig-none.service}}")
        until("no unit to act on is no failure", lambda: "InSync" in self.said("rig-web"))
        self.expect("what was stopped stays so", not self.host.active("rig-web") and len(self.acts()) == 3, self.acts())
        self.push("rig-stubborn", "one", "{reload: {unit: rig-stubborn.service}}")
        until("a failed reload is told", lambda: "ActionFailed" in self.said("rig-stubborn"))
        self.push("rig-own", "one", "{restart: {unit: ostler-holder.service}}")
        until("and so is a unit of Ostler's own", lambda: "ActionFailed" in self.said("rig-own"))
        for name in ("rig-web", "rig-stubborn", "rig-own"):
            self.host.ostler("delete", f"configfile/{name}", "--wait=false")
        self.ok(f"units on {NODE}: reloaded and restarted over D-Bus, a stopped one left so, failures told")
