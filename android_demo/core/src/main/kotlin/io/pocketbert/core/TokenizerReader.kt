/*
 * Builds a Tokenizer from the program in tokenizer.safetensors, which BUNDLE.md describes.
 *
 * Takes the file's arrays and metadata. Returns the steps in their order; a step, model or version that is not known here
 * is refused by name, never skipped.
 */
package io.pocketbert.core

internal class TokenizerReader(private val file: TensorFile) {
    private val program = Fields(parseJson(file.metadata("program")), "program")

    fun read(): Tokenizer {
        val version = program.int("version")
        if (version != VERSION) throw unknown("version", version.toString())
        return Tokenizer(
            normalizer = program.children("normalizer").map(::normalizerStep),
            splitter = program.children("pre_tokenizer").map(::splitterStep),
            model = model(program.child("model")),
            written = addedTokens("added.written"),
            normalized = addedTokens("added.normalized"),
            single = template("single", Tokenizer.FIRST),
            pair = template("pair", Tokenizer.FIRST, Tokenizer.SECOND),
        )
    }

    private fun normalizerStep(step: Fields): NormalizerStep = when (val name = step.text("step")) {
        "map" -> MapStep(CodePointMap(file, step.text("table")))
        "order" -> OrderStep(CodePointTable(file, step.text("table"), OrderStep.RANKS - 1))
        "replace" -> ReplaceStep(codePoints(step.text("pattern")).also(::requirePattern), codePoints(step.text("content")))
        "collapse" -> CollapseStep(codePoints(step.text("content")))
        "charsmap" -> charsmap(step)
        else -> throw unknown("normalizer", name)
    }

    private fun charsmap(step: Fields): CharsmapStep {
        val graphemes = step.text("graphemes")
        val texts = Texts(file, step.text("texts"))
        val transitions = file.chars("$graphemes.transitions")
        val states = transitions.size / CharsmapStep.CLASSES
        val whole = states > 0 && states * CharsmapStep.CLASSES == transitions.size
        if (!whole || transitions.any { it.code and CharsmapStep.BREAK - 1 >= states }) {
            throw BundleException("array '$graphemes.transitions' is cut off or damaged")
        }
        val classes = CodePointTable(file, graphemes, CharsmapStep.CLASSES - 1)
        return CharsmapStep(Trie(file, step.text("trie"), texts.count), texts, classes, transitions)
    }

    private fun requirePattern(pattern: IntArray) {
        if (pattern.isEmpty()) throw BundleException("the tokenizer replaces an empty text, which is everywhere")
    }

    /** The ids around texts, each of which stands there once. */
    private fun template(name: String, vararg texts: Int): IntArray {
        val ids = program.ints(name)
        if (ids.filter { it < 0 }.sortedDescending() != texts.toList()) throw BundleException("the tokenizer's '$name' is no template: ${ids.toList()}")
        return ids
    }

    private fun id(fields: Fields, name: String): Int =
        fields.int(name).also { if (it < 0) throw BundleException("the tokenizer's $name is negative") }

    private fun splitterStep(step: Fields): SplitterStep = when (val name = step.text("step")) {
        "split" -> SplitStep(CodePointTable(file, step.text("table")))
        "metaspace" -> MetaspaceStep(replacement(step), step.flag("prepend"), step.flag("split"))
        else -> throw unknown("pre-tokenizer", name)
    }

    private fun replacement(step: Fields): Int = codePoints(step.text("replacement")).singleOrNull()
        ?: throw BundleException("the tokenizer's replacement of a space is not one code point")

    private fun model(model: Fields): Model = when (val name = model.text("type")) {
        "WordPiece" -> {
            val continuation = codePoints(model.text("continuation"))
            WordPiece(Trie(file, model.text("trie")), id(model, "unk_id"), continuation, model.int("longest_word"))
        }
        "Unigram" -> {
            val scores = file.doubles(model.text("scores"))
            if (scores.isEmpty() || scores.any { !it.isFinite() }) throw BundleException("the tokenizer's scores are none, or no numbers")
            Unigram(Trie(file, model.text("trie"), scores.size), scores, id(model, "unk_id"))
        }
        else -> throw unknown("model", name)
    }

    private fun addedTokens(trie: String): AddedTokens {
        val tokens = program.children("added_tokens").map {
            AddedToken(id(it, "id"), it.flag("single_word"), it.flag("lstrip"), it.flag("rstrip"))
        }
        val words = tokens.any { it.singleWord || it.takesLeft || it.takesRight }
        return AddedTokens(Trie(file, trie, tokens.size), tokens, if (words) CodePointTable(file, "words") else null)
    }

    private fun unknown(part: String, name: String) =
        BundleException("the tokenizer's $part '$name' is not known to this app: update the app")

    private companion object {
        const val VERSION = 1
    }
}
