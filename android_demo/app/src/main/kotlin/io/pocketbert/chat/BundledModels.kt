/*
 * The models that an app carries as bundles, with the engines that it has.
 *
 * A bundle's files are copied to where engines can open them, each is checked by its hash, and an engine answers the
 * golden cases before its first use (core's BundleStore and SelfChecks). Leaves out: Android; assets come as functions.
 */
package io.pocketbert.chat

import io.pocketbert.core.BundleSource
import io.pocketbert.core.BundleStore
import io.pocketbert.core.EngineKind
import io.pocketbert.core.InstalledBundle
import io.pocketbert.core.Outcome
import io.pocketbert.core.Prediction
import io.pocketbert.core.SelfChecks
import io.pocketbert.core.TextClassifier
import kotlinx.coroutines.CoroutineDispatcher
import kotlinx.coroutines.withContext
import java.io.File

/** [names] lists the bundles, [source] opens one by its name; [folder] keeps what is copied; [device] as SelfChecks takes it. */
class BundledModels(
    private val names: () -> List<String>,
    private val source: (String) -> BundleSource,
    private val engines: List<EngineKind>,
    private val folder: File,
    private val worker: CoroutineDispatcher,
    device: String,
    private val freeBytes: (File) -> Long = File::getUsableSpace,
) : Models {
    private val checks = SelfChecks(File(folder, "checks"), device)

    override suspend fun choices(): List<Choice> = withContext(worker) {
        names().flatMap { name -> engines.map { Choice(name, it.format) } }
    }

    override suspend fun open(choice: Choice): OpenModel = withContext(worker) {
        val kind = engines.first { it.format == choice.engine }
        val installed = BundleStore(File(folder, "bundles/${choice.model}"), freeBytes).install(source(choice.model), choice.engine)
        Opened(checks.open(installed, kind), card(choice, installed, kind))
    }

    private fun card(choice: Choice, installed: InstalledBundle, kind: EngineKind) = Card(
        choice,
        installed.bundle.manifest.labels,
        installed.artifact.files.sumOf { it.bytes },
        kind.version,
        (checks.outcome(installed, kind) as? Outcome.Passed)?.gap,
    )

    private inner class Opened(private val classifier: TextClassifier, override val card: Card) : OpenModel {
        override suspend fun classify(text: String): List<Prediction> = withContext(worker) { classifier.classify(text) }

        override suspend fun close() = withContext(worker) { classifier.close() }
    }
}
