"""Invented rows of every benchmark for make_eval_golden.py, with what a reader may get wrong:
labels in digits, three to five choices, blanks around keys, marks in brackets, capitals, list
literals, other scripts, texts longer than the model, equal choices, questions in their own pool."""

# Which subjects MMLU has, by the harness's groups.
SUBJECTS = """abstract_algebra anatomy astronomy business_ethics clinical_knowledge college_biology
college_chemistry college_computer_science college_mathematics college_medicine college_physics
computer_security conceptual_physics econometrics electrical_engineering elementary_mathematics
formal_logic global_facts high_school_biology high_school_chemistry high_school_computer_science
high_school_european_history high_school_geography high_school_government_and_politics
high_school_macroeconomics high_school_mathematics high_school_microeconomics high_school_physics
high_school_psychology high_school_statistics high_school_us_history high_school_world_history
human_aging human_sexuality international_law jurisprudence logical_fallacies machine_learning
management marketing medical_genetics miscellaneous moral_disputes moral_scenarios nutrition
philosophy prehistory professional_accounting professional_law professional_medicine
professional_psychology public_relations security_studies sociology us_foreign_policy virology
world_religions""".split()
FILES = ["arc_challenge_test", "arc_challenge_train", "arc_easy_test", "arc_easy_train",
         "commonsense_qa_validation", "commonsense_qa_train", "hellaswag_validation",
         "hellaswag_train", "mmlu_test", "mmlu_dev", "openbookqa_test", "openbookqa_train",
         "piqa_validation", "piqa_train", "race_test", "social_iqa_validation", "social_iqa_train",
         "truthfulqa_validation", "winogrande_validation", "winogrande_train"]
ITEMS, POOL = 32, 9
WHO = ("the miller|Anna|a grey heron|the ferry pilot|Tomás|the night baker|an old clock|Frau Weiß|"
       "the smith|a wet dog|Σωκράτης|the tall nurse").split("|")
DOES = ("mends|paints|counts|hides|carries|weighs|draws|boils|lifts|sells|buries|washes").split("|")
WHAT = ("the blue gate|seven eggs|a cracked bell|two maps|the straw hat|salt|a copper kettle|"
        "the naïve plan|a box of nails|crème brûlée|the short ladder|東京 tea").split("|")
WHERE = ("by the river|in the attic|before noon|under a bridge|near the mill|at low tide|"
         "behind the school|after the storm|on the hill|without a word").split("|")
LONG = " And so it went on, day after day, with no end to it."


class Writer:
    def __init__(self, draw):
        self.draw = draw

    def one(self, words):
        return self.draw.choice(words)

    def clause(self):
        return f"{self.one(WHO)} {self.one(DOES)} {self.one(WHAT)} {self.one(WHERE)}"

    def sentence(self):
        text = self.clause()
        return text[0].upper() + text[1:] + "."

    def question(self):
        return f"why does {self.one(WHO)} carry {self.one(WHAT)} {self.one(WHERE)}?"

    def answers(self, count):
        made = []
        while len(made) < count:
            text = self.one([f"{self.one(WHAT)}", f"{self.one(DOES)} {self.one(WHAT)}",
                             self.clause()])
            if text not in made:
                made.append(text)
        return made

    # --- rows -------------------------------------------------------------------------------------

    def arc(self, i):
        count = (3, 4, 4, 5)[i % 4]
        labels = list("1234" if i % 4 == 1 else "ABCDE")[:count]
        answers = self.answers(count)
        if i % 11 == 3:
            answers[2] = answers[0]  # a tie: the first counts
        question = self.question() + (LONG * 20 if i % 13 == 5 else "")
        return {"id": f"q{i}", "question": question,
                "choices": {"text": answers, "label": labels}, "answerKey": self.one(labels)}

    def commonsense(self, i):
        blanks = [("", ""), (" ", ""), ("", "\u00a0 "), ("\t", "\n")][i % 4]
        return {"id": f"c{i}", "question": blanks[0] + self.question() + blanks[1],
                "question_concept": self.one(WHAT),
                "choices": {"label": list("ABCDE"), "text": self.answers(5)},
                "answerKey": self.one("ABCDE")}

    def hellaswag(self, i):
        mark = ["", "[header] ", " [title] ", "[step]  ", "[substeps] "][i % 5]
        endings = [mark + self.sentence() for _ in range(4)]
        if i % 7 == 2:
            endings[1] = f"[a\nb] {self.clause()}   and then [open {self.clause()}"
        ctx_b = ["Anna meets Tomás in New York", "SHE IS ΟΔΟΣ ΣΑΣ", "ßtrange İstanbul day", "",
                 "ǆ the letter"][i % 5]
        ctx_a = self.sentence() + (" [title] How to begin" if i % 5 == 2 else "")
        return {"ind": i, "activity_label": ["Baking", " Home and Garden", "Sailing"][i % 3],
                "ctx_a": ctx_a, "ctx_b": ctx_b, "ctx": f"{ctx_a} {ctx_b}", "endings": endings,
                "source_id": f"made~{i}", "split": "val", "split_type": "indomain",
                "label": str(self.draw.randrange(4))}

    def mmlu(self, subject, i):
        return {"question": self.question() + ("\n" if i == 1 else ""), "subject": subject,
                "choices": [self.one(WHAT) for _ in range(4)], "answer": self.draw.randrange(4)}

    def openbook(self, i):
        stem = self.clause() + ("  " if i % 6 == 1 else "")
        return {"id": f"o{i}", "question_stem": "" if i == 4 else stem,
                "choices": {"text": self.answers(4), "label": list("ABCD")},
                "answerKey": self.one("ABCD") if i % 5 else " " + self.one("ABCD")}

    def piqa(self, i):
        goal = ["", "<|endoftext|>", self.clause()][min(i, 2)]
        return {"goal": goal + (LONG * 30 if i % 12 == 9 else ""), "sol1": self.sentence(),
                "sol2": self.sentence(), "label": self.draw.randrange(2)}

    def race(self, i):
        problems = []
        for p in range(1 + i % 4):
            question = [self.question(), f"It's true that {self.one(WHO)} is  _  .",
                        f'"{self.clause()}" means', f"{self.one(WHO)} sells _ ."][(i + p) % 4]
            if (i + p) % 4 == 2:
                question += "\n" + self.one(["\\n", "it's", '"', "\u2028", "\x07"])
            problems.append({"question": question, "answer": self.one("ABCD"),
                             "options": self.answers(4)})
        article = " ".join(self.sentence() for _ in range(2 + 14 * (i % 9 == 4)))
        return {"example_id": f"r{i}", "article": article, "problems": str(problems)}

    def social(self, i):
        a, b, c = self.answers(3)
        return {"context": self.sentence(), "question": self.question(), "answerA": a,
                "answerB": b, "answerC": c, "label": str(1 + i % 3)}

    def truthful(self, i):
        one, many = self.answers(2 + i % 5), self.answers(3 + i % 6)
        labels = [1] + [self.draw.randrange(2) for _ in many[1:]]
        return {"question": self.question(),
                "mc1_targets": {"choices": one, "labels": [1] + [0] * (len(one) - 1)},
                "mc2_targets": {"choices": many, "labels": labels}}

    def winogrande(self, i):
        tail = [" was {}.", " _ {}", "'s {} ", ", or so they say {}."][i % 4]
        return {"sentence": f"{self.sentence()} Then _" + tail.format(self.one(WHERE)),
                "option1": self.one(WHO), "option2": self.one(WHAT),
                "answer": self.one("12")}


def all_rows(draw):
    writer, rows = Writer(draw), {}
    makers = {"arc_challenge": writer.arc, "arc_easy": writer.arc,
              "commonsense_qa": writer.commonsense, "hellaswag": writer.hellaswag,
              "openbookqa": writer.openbook, "piqa": writer.piqa, "race": writer.race,
              "social_iqa": writer.social, "truthfulqa": writer.truthful,
              "winogrande": writer.winogrande}
    for stem in FILES:
        task, _, split = stem.rpartition("_")
        if task == "mmlu":
            counts = {"dev": [5] * 57, "test": [2] * 55 + [3, 4]}[split]
            rows[stem] = [writer.mmlu(s, i) for s, n in zip(SUBJECTS, counts) for i in range(n)]
        else:
            count = POOL if split == "train" else ITEMS
            rows[stem] = [makers[task](i) for i in range(count)]
    for task in ("hellaswag", "piqa", "winogrande"):  # questions that their own pool holds
        pool, asked = rows[f"{task}_train"], rows[f"{task}_validation"]
        pool[1], pool[5] = dict(asked[0]), dict(asked[3])
        pool[2] = pool[6] = pool[7] = dict(asked[3])
    return rows


def all_texts(draw):
    """Documents: one character, other scripts, a special token, longer than the model."""
    writer = Writer(draw)
    return ["x", "東京 naïve\n\nΣωκράτης", "one<|endoftext|>two", "  ",
            *(" ".join(writer.sentence() for _ in range(n)) for n in (1, 3, 9, 10, 17, 40))]
