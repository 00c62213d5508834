"""real_templates.py - the chat templates that ship with models, as llama.cpp collects them for its tests.

	python3 tests/real_templates.py FOLDER

Fetches the Python package that carries llama.cpp's sources, once, checks its SHA-256 and leaves each
template in FOLDER as NAME.jinja: files of its own, and those that stand in its test as C strings.
"""
import ast, glob, hashlib, os, re, subprocess, sys, tarfile, tempfile

PACKAGE, SUM = "llama-cpp-python==0.3.16", "34ed0f9bd9431af045bb63d9324ae620ad0536653740e9bb163a2e1fcb973be6"


def strings(source):
	"""Name and text of each case: literals, raw or plain, one after the other."""
	for case in re.finditer(r'/\* \.name= \*/ "([^"]*)",\s*/\* \.template_str= \*/', source):
		at, text = case.end(), ""
		while True:
			at += re.match(r"\s*", source[at:]).end()
			raw = re.match(r'(?:u8)?R"([^(]*)\(', source[at:])
			plain = re.match(r'(?:u8)?("(?:[^"\\]|\\.)*")', source[at:])
			if raw:
				end = source.index(")" + raw[1] + '"', at)
				text += source[at + raw.end():end]
				at = end + len(raw[1]) + 2
			elif plain:
				text += ast.literal_eval(plain[1])
				at += plain.end()
			else:
				break
		if text:
			yield re.sub(r"[^\w.-]+", "-", case[1]), text


def fetch(folder):
	subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps",
		"--no-binary", PACKAGE.split("=")[0], "-d", folder, PACKAGE], check=True, timeout=400)
	path = glob.glob(folder + "/*.tar.gz")[0]
	with open(path, "rb") as f:
		assert hashlib.sha256(f.read()).hexdigest() == SUM, "another file than expected"
	return path


def main():
	out = sys.argv[1]
	os.makedirs(out, exist_ok=True)
	with tempfile.TemporaryDirectory() as folder, tarfile.open(fetch(folder)) as tar:
		for member in tar:
			if member.name.endswith(".jinja"):
				found = [(os.path.basename(member.name)[:-6], tar.extractfile(member).read().decode())]
			elif member.name.endswith("/test-chat-template.cpp"):
				found = strings(tar.extractfile(member).read().decode())
			else:
				continue
			for name, text in found:
				with open(os.path.join(out, name + ".jinja"), "w", encoding="utf-8") as f:
					f.write(text)


main()
