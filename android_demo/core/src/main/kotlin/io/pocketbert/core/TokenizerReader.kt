/*
 * Builds a Tokenizer from the program in tokenizer.safetensors, which BUNDLE.md describes.
 *
 * Takes the file's arrays and metadata. Gives the steps in their order; a step, model or version that is not known here
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
            single = program.ints("single"),
            pair = program.ints("pair"),
        )
    }

    private fun normalizerStep(step: Fields): NormalizerStep = when (val name = step.text("step")) {
        "map" -> MapStep(CodePointMap(file, step.text("table")))
        "order" -> OrderStep(CodePointTable(file, step.text("table")))
        "replace" -> ReplaceStep(codePoints(step.text("pattern")), codePoints(step.text("content")))
        "collapse" -> CollapseStep(codePoints(step.text("content")))
        "charsmap" -> CharsmapStep(
            Trie(file, step.text("trie")),
            Texts(file, step.text("texts")),
            CodePointTable(file, step.text("graphemes")),
            file.chars("${step.text("graphemes")}.transitions"),
        )
        else -> throw unknown("normalizer", name)
    }

    private fun splitterStep(step: Fields): SplitterStep = when (val name = step.text("step")) {
        "split" -> SplitStep(CodePointTable(file, step.text("table")))
        "metaspace" -> MetaspaceStep(codePoints(step.text("replacement")).single(), step.flag("prepend"), step.flag("split"))
        else -> throw unknown("pre-tokenizer", name)
    }

    private fun model(model: Fields): Model {
        val vocabulary = Trie(file, model.text("trie"))
        return when (val name = model.text("type")) {
            "WordPiece" ->
                WordPiece(vocabulary, model.int("unk_id"), codePoints(model.text("continuation")), model.int("longest_word"))
            "Unigram" -> Unigram(vocabulary, file.doubles(model.text("scores")), model.int("unk_id"))
            else -> throw unknown("model", name)
        }
    }

    private fun addedTokens(trie: String): AddedTokens {
        val tokens = program.children("added_tokens").map {
            AddedToken(it.int("id"), it.flag("single_word"), it.flag("lstrip"), it.flag("rstrip"))
        }
        val words = tokens.any { it.singleWord || it.takesLeft || it.takesRight }
        return AddedTokens(Trie(file, trie), tokens, if (words) CodePointTable(file, "words") else null)
    }

    private fun unknown(part: String, name: String) =
        BundleException("the tokenizer's $part '$name' is not known to this app: update the app")

    private companion object {
        const val VERSION = 1
    }
}
