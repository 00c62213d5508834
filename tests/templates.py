#!/usr/bin/env python3
"""Compare weft's chat templates with Jinja2, byte for byte.

  tests/templates.py [--render build/render] [--cases N] [--seed N] [more.jinja ...]

Jinja2 is set up as transformers sets it up: immutable sandbox, trim_blocks, lstrip_blocks, loop
controls, tojson by json.dumps, {% generation %}.  Compared are tests/data/templates/*.jinja and the
built-in formats over fixed conversations, a table of expressions, and random templates.  A case
passes when both give the same text, or both refuse.
"""
import argparse, datetime, functools, glob, json, os, random, subprocess, sys, warnings

import jinja2
import jinja2.ext
import jinja2.nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

HERE = os.path.dirname(os.path.abspath(__file__))


class Generation(jinja2.ext.Extension):
	tags = {"generation"}

	def parse(self, parser):
		line = next(parser.stream).lineno
		body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
		return jinja2.nodes.CallBlock(self.call_method("run"), [], [], body).set_lineno(line)

	def run(self, caller):
		return caller()


def environment():
	def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
		return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

	def raise_exception(message):
		raise jinja2.exceptions.TemplateError(message)

	env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
		extensions=[Generation, jinja2.ext.loopcontrols])
	env.filters["tojson"] = tojson
	warnings.simplefilter("ignore", SyntaxWarning)  # Jinja2 compiles 1[0] to Python as it stands
	env.globals["raise_exception"] = raise_exception
	env.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
	return env


ENV = environment()


@functools.lru_cache(None)
def compiled(source):
	return ENV.from_string(source)


def expected(source, context):
	try:
		return {"text": compiled(source).render(**json.loads(json.dumps(context)))}
	except Exception as e:  # whatever a template runs into: Jinja2 lets Python's own errors through
		return {"error": "%s: %s" % (type(e).__name__, e)}


# ---- conversations ----

TOOLS = [{"type": "function", "function": {
	"name": "get_weather", "description": "The \"weather\" at <place> & time, é",
	"parameters": {"type": "object", "required": ["city"], "properties": {
		"city": {"type": "string", "description": "Where"},
		"unit": {"type": "string", "enum": ["c", "f"], "default": "c"},
		"days": {"type": ["integer", "null"], "nullable": True},
		"grid": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
		"near": {"type": "object", "properties": {"km": {"type": "number"}}, "required": []}}}}},
	{"type": "function", "function": {"name": "now", "description": "", "parameters": {"type": "object", "properties": {}}}}]


def message(role, content, **more):
	return dict(role=role, content=content, **more)


def call(name, **arguments):
	return {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}


SYSTEM = message("system", "Be brief.\n")
HELLO = message("user", " Hello <there>, 'you' and \"you\" ")
ANSWER = message("assistant", "<think>\nhm\n</think>\n\nHi!")
UNICODE = message("user", "Grüße, 世界 🌍\u00a0\tÉTÉ straße")
CALLS = message("assistant", "", tool_calls=[call("get_weather", city="Paris", days=3, near={"km": 1.5, "x": None}),
	call("now")])
SILENT = message("assistant", None, tool_calls=[call("now", deep=[[1, [2.0, True]], {"a": "b\n"}])], reasoning_content="r")
RESULT = message("tool", "{\"t\": 21}", name="get_weather", tool_call_id="call_1")
PARTS = message("user", [{"type": "text", "text": "Look "}, {"type": "image"}, {"type": "text", "text": "here"}])

CONVERSATIONS = [[], [HELLO], [SYSTEM, HELLO], [SYSTEM, HELLO, ANSWER, UNICODE], [HELLO, ANSWER, UNICODE],
	[SYSTEM, UNICODE, CALLS, RESULT, RESULT, ANSWER], [HELLO, SILENT, RESULT], [PARTS, ANSWER, HELLO],
	[message("user", "")], [HELLO, HELLO], [SYSTEM, SYSTEM, HELLO], [SYSTEM, HELLO, ANSWER], [message("developer", "x"), HELLO]]

SETTINGS = [{}, {"add_generation_prompt": True}, {"add_generation_prompt": True, "tools": TOOLS, "date_string": "1 Jan 2025"},
	{"add_generation_prompt": False, "tools": None, "enable_thinking": False, "documents": [{"title": "T", "text": "body"}]}]


def contexts():
	for messages in CONVERSATIONS:
		for setting in SETTINGS:
			yield dict(messages=messages, bos_token="<s>", eos_token="</s>", **setting)


# ---- expressions: one template each, over this context ----

VALUES = {"s": "Hello, World", "u": "straße ÉTÉ 世界", "e": "", "w": "  a  b\tc\n", "n": 7, "m": -3, "f": 2.5, "t": True,
	"z": None, "l": [3, 1, 2], "ls": ["b", "A", "c", "a"], "ll": [[1, 2], [3, 4]], "d": {"b": 1, "a": [1, {"x": None}], "C": "q"},
	"rows": [{"k": "x", "v": 1, "on": True}, {"k": "Y", "v": 2}, {"k": "z", "v": 2, "on": False}]}


def expressions():
	with open(os.path.join(HERE, "data", "templates", "expressions.txt"), encoding="utf-8") as f:
		for line in f:
			line = line.rstrip("\n")
			if line and not line.startswith("##"):
				yield line.replace("\\N", "\n") if "{%" in line or "{{" in line or "{#" in line else "{{ %s }}" % line


# ---- random templates ----

class Random:
	"""Small templates by a grammar: expressions know roughly what type they give, so most of them work."""

	def __init__(self, seed):
		self.r = random.Random(seed)
		self.names, self.loops, self.macros = ["x"], 0, []

	def pick(self, *choices):
		choice = self.r.choice(choices)
		return choice() if callable(choice) else choice

	def literal(self):
		return repr(self.r.choice(["", "a", "user", "Assistant", " pad ", "x,y,z", "é世", "line\nline", "</think>", "it's"]))

	def number(self, d):
		if d <= 0:
			return self.pick("0", "1", "2", "(-1)", "7", "(messages|length)")
		return self.pick("3", lambda: "(%s %s %s)" % (self.number(d - 1), self.pick("+", "-", "*", "//", "%"), self.number(d - 1)),
			lambda: "(%s|length)" % self.list(d - 1), lambda: "(%s|length)" % self.text(d - 1), lambda: "(-%s)" % self.number(0),
			lambda: "(%s|int)" % self.text(d - 1), lambda: "(%s|abs)" % self.number(d - 1), lambda: self.loop("index0"),
			lambda: "%s.find(%s)" % (self.text(d - 1), self.literal()), lambda: "%s.count(%s)" % (self.text(d - 1), self.literal()),
			lambda: "(%s if %s else %s)" % (self.number(d - 1), self.truth(d - 1), self.number(d - 1)))

	def loop(self, name):
		return "loop." + name if self.loops else "1"

	def text(self, d):
		if d <= 0:
			return self.pick(self.literal, "bos_token", "eos_token", "message.content", "message['role']", "messages[0].content", "x")
		inner = lambda: self.text(d - 1)
		return self.pick(inner, lambda: "(%s ~ %s)" % (inner(), self.any(d - 1)), lambda: "(%s + %s)" % (inner(), inner()),
			lambda: "(%s|%s)" % (inner(), self.pick("trim", "upper", "lower", "title", "capitalize", "string", "tojson", "e|length|string",
				"reverse", "indent(2)", "indent(3, true)", "replace('a', '<>')", "default('none')", "first", "last|string")),
			lambda: "%s.%s" % (inner(), self.pick("strip()", "lstrip()", "rstrip()", "strip(' a')", "upper()", "lower()", "title()",
				"capitalize()", "replace('e', 'E')", "replace(' ', '', 1)", "split(',')[0]", "split()[-1]", "rsplit(' ', 1)[-1]",
				"split('</think>')[-1]", "removeprefix('a')")),
			lambda: "%s[%s]" % (inner(), self.number(d - 1)), lambda: "%s[%s]" % (inner(), self.slice()),
			lambda: "(%s if %s else %s)" % (inner(), self.truth(d - 1), inner()),
			lambda: "(%s|join(%s))" % (self.list(d - 1), self.literal()), lambda: "(%s|tojson)" % self.any(d - 1),
			lambda: "(%s * 2)" % inner(), lambda: "%s.join(%s)" % (self.literal(), self.list(d - 1)),
			lambda: "('%%s|%%s' %% (%s, %s))" % (inner(), self.number(d - 1)), self.invoke)

	def invoke(self):
		return "%s(%s)" % (self.r.choice(self.macros), self.text(0)) if self.macros else "''"

	def slice(self):
		part = lambda: self.pick("", "", "1", "-1", "2", "-3", "5")
		return part() + ":" + part() + self.pick("", "", ":2", ":-1", ":")

	def list(self, d):
		if d <= 0:
			return self.pick("messages", "[1, 2, 3]", "['b', 'a', 'B']", "range(3)", "[]", "(1, 'x')")
		inner = lambda: self.list(d - 1)
		return self.pick(lambda: "%s[%s]" % (inner(), self.slice()), lambda: "%s.split(%s)" % (self.text(d - 1), self.pick("", "' '", "'e', 1")),
			lambda: "(%s|list)" % self.pick(inner, lambda: self.text(d - 1)), lambda: "[%s, %s]" % (self.any(d - 1), self.any(d - 1)),
			lambda: "(%s|map('string')|list)" % inner(), lambda: "(messages|map(attribute='role')|list)", lambda: "(%s|unique|list)" % inner(),
			lambda: "(%s|reverse|list)" % inner(), lambda: "(%s|sort)" % self.pick("['b', 'C', 'a']", "[3, 1, 2]", inner),
			lambda: "(messages|selectattr('role', 'equalto', %s)|list)" % self.pick("'user'", "'assistant'"),
			lambda: "(messages|rejectattr('content')|list)", lambda: "(%s|select('string')|list)" % inner(),
			lambda: "(%s|reject('none')|list)" % inner(), lambda: "(%s|dictsort)" % self.dict(d - 1), lambda: "(%s.items()|list)" % self.dict(d - 1),
			lambda: "(%s.keys()|list)" % self.dict(d - 1), lambda: "(%s|list + %s|list)" % (inner(), inner()))

	def dict(self, d):
		if d <= 0:
			return self.pick("{}", "{'a': 1, 'b': 'c'}", "message", "messages[0]")
		return self.pick(lambda: "{'k': %s, %s: 1}" % (self.any(d - 1), self.literal()), lambda: "dict(a=%s, b=2)" % self.any(d - 1), "messages[-1]")

	def truth(self, d):
		if d <= 0:
			return self.pick("true", "false", "add_generation_prompt", lambda: self.loop("first"), lambda: self.loop("last"),
				"messages", "(tools is defined)", "(message.role == 'user')")
		inner = lambda: self.truth(d - 1)
		return self.pick(lambda: "(not %s)" % inner(), lambda: "(%s and %s)" % (inner(), inner()), lambda: "(%s or %s)" % (inner(), inner()),
			lambda: "(%s %s %s)" % (self.number(d - 1), self.pick("<", ">", "<=", ">=", "==", "!="), self.number(d - 1)),
			lambda: "(%s %s %s)" % (self.text(d - 1), self.pick("==", "!=", "in", "not in", "<"), self.text(d - 1)),
			lambda: "(%s in %s)" % (self.any(d - 1), self.list(d - 1)), lambda: "('content' in %s)" % self.dict(d - 1),
			lambda: "(%s is %s%s)" % (self.any(d - 1), self.pick("", "not "), self.pick("string", "none", "defined", "mapping", "iterable",
				"sequence", "number", "integer", "boolean", "true", "undefined", "float")),
			lambda: "(%s is %s)" % (self.number(d - 1), self.pick("odd", "even", "divisibleby 3", "eq(2)", "in [1, 2]")),
			lambda: "%s.%s('a')" % (self.text(d - 1), self.pick("startswith", "endswith")))

	def any(self, d):
		return self.r.choice([self.number, self.text, self.text, self.list, self.dict, self.truth])(d)

	def tag(self, code):
		return self.r.choice(["{%", "{%", "{%", "{%-", "{%+"]) + " " + code + " " + self.r.choice(["%}", "%}", "%}", "-%}", "+%}"])

	def data(self):
		return self.pick("", "\n", "  ", "text\n", "\n  \t", "a } b", " {# note #}\n", "<|im_start|>", "  {#- x -#}  ", "\n\n", "é\n ",
			"{% raw %}{{ x }}{% endraw %}\n", "\u00a0 ", "\r\n ")

	def body(self, d):
		return "".join(self.data() + self.statement(d) for _ in range(self.r.randint(1, 3))) + self.data()

	def looped(self, d):
		self.loops += 1
		condition = self.pick("", "", " if %s" % self.truth(0).replace("loop.", "x.")) if self.loops == 1 else ""
		out = self.tag("for %s in %s%s" % (self.pick("message", "x"), self.list(1), condition)) + self.body(d - 1)
		if self.r.random() < .2:
			out += self.tag("if %s" % self.truth(1)) + self.tag(self.pick("break", "continue")) + self.tag("endif")
		self.loops -= 1
		return out + (self.tag("else") + self.body(0) if self.r.random() < .2 else "") + self.tag("endfor")

	def branch(self, d):
		out = self.tag("if " + self.truth(2)) + self.body(d - 1)
		if self.r.random() < .4:
			out += self.tag("elif " + self.truth(1)) + self.body(d - 1)
		return out + (self.tag("else") + self.body(d - 1) if self.r.random() < .5 else "") + self.tag("endif")

	def macro(self, d):
		name, loops = "m%d" % len(self.macros), self.loops
		self.loops = 0
		out = self.tag("macro %s(x, y=%s)" % (name, self.text(0))) + self.body(0) + self.tag("endmacro")
		self.loops = loops
		self.macros.append(name)
		return out

	def count(self, d):
		return self.tag("set ns = namespace(n=0, s='')") + self.tag("for message in messages") + self.tag("set ns.n = ns.n + 1") + \
			self.tag("set ns.s = ns.s ~ message.role") + self.tag("endfor") + "{{ ns.n }}{{ ns.s }}"

	def statement(self, d):
		show = lambda: self.r.choice(["{{", "{{", "{{-"]) + " " + self.any(2) + " " + self.r.choice(["}}", "}}", "-}}"])
		if d <= 0:
			return show()
		return self.pick(show, show, show, lambda: self.looped(d), lambda: self.looped(d), lambda: self.branch(d), lambda: self.branch(d),
			lambda: self.tag("set x = " + self.any(2)), lambda: self.tag("set x") + self.body(d - 1) + self.tag("endset"),
			lambda: self.tag("set x, message = %s, messages[-1]" % self.any(1)), lambda: self.macro(d), lambda: self.count(d),
			lambda: self.tag("filter upper") + self.body(d - 1) + self.tag("endfilter"),
			lambda: self.tag("with x = %s" % self.any(1)) + self.body(d - 1) + self.tag("endwith"),
			lambda: self.tag("generation") + self.body(d - 1) + self.tag("endgeneration"))


# A name that is only set in an inner scope hides the context's there even before it is set, a quirk of
# Jinja2's compiler that weft does not share: so the names in use are set first.
START = "{% set x = 'Xx' %}{% set message = messages[-1] if messages else {'role': 'none', 'content': ''} %}"


def random_cases(n, seed):
	pool = list(contexts())
	r = random.Random(seed)
	for i in range(n):
		yield "random %d" % (seed + i), START + Random(seed + i).body(3), r.choice(pool)


# ---- the comparison ----

def ask(render, requests):
	text = "".join(json.dumps(r) + "\n" for r in requests)
	done = subprocess.run([render], input=text.encode(), stdout=subprocess.PIPE, check=False)
	answers = [json.loads(line) for line in done.stdout.decode().split("\n") if line]
	if done.returncode or len(answers) != len(requests):
		sys.exit("%s: exit %d after %d of %d templates" % (render, done.returncode, len(answers), len(requests)))
	return answers


def builtin_cases(render):
	names = ["llama2", "llama3", "chatml", "smollm", "zephyr", "mistral", "gemma", "phi3", "phi4", "chatglm2", "chatglm3", "glm4",
		"falcon", "falcon3", "olmo2", "vicuna", "alpaca", "deepseek", "harmony"]
	for name, answer in zip(names, ask(render, [{"builtin": name} for name in names])):
		for context in contexts():
			yield "builtin " + name, answer["text"], context


def file_cases(paths):
	for path in paths:
		with open(path, encoding="utf-8", newline="") as f:
			source = f.read()
		for context in contexts():
			yield os.path.basename(path), source, context


def report(name, source, context, want, got, whole):
	a, b = list(want.values())[0], list(got.values())[0]
	at = max(0, len(os.path.commonprefix([a, b])) - 40)
	end = None if whole else at + 160
	print("%s%s\n  jinja2 %s %r\n  weft   %s %r" % (name, ": %r" % source if whole or len(source) < 200 else "", list(want)[0], a[at:end],
		list(got)[0], b[at:end]))
	if whole:
		print("  " + json.dumps(context, ensure_ascii=False))


def main():
	parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
	parser.add_argument("--render", default="build/render")
	parser.add_argument("--cases", type=int, default=800)
	parser.add_argument("--seed", type=int, default=1)
	parser.add_argument("--verbose", action="store_true")
	parser.add_argument("files", nargs="*")
	args = parser.parse_args()

	own = sorted(glob.glob(os.path.join(HERE, "data", "templates", "*.jinja")))
	cases = list(file_cases(own + args.files)) + list(builtin_cases(args.render))
	cases += [("expression", source, VALUES) for source in expressions()] + list(random_cases(args.cases, args.seed))
	answers = ask(args.render, [{"template": source, "context": context} for _, source, context in cases])
	passed = failed = refused = 0
	seen = set()
	for (name, source, context), got in zip(cases, answers):
		want = expected(source, context)
		if want == got or ("error" in want and "error" in got):
			passed += 1
			refused += "error" in want
			if args.verbose and "error" in want:
				print("%s: %s / %s" % (name, want["error"][:90], got["error"]))
			continue
		failed += 1
		if (name == "expression" or name not in seen) and len(seen) < 20:
			seen.add(name if name != "expression" else source)
			report(name, source, context, want, got, args.verbose)
	print("jinja2 %s: %d cases refused by both" % (jinja2.__version__, refused))
	print("%d passed, %d failed" % (passed, failed))
	return 1 if failed else 0


if __name__ == "__main__":
	sys.exit(main())
