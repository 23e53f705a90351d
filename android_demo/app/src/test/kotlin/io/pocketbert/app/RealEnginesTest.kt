/*
 * The app as it is shipped, with the demo bundles in its assets and the real engines: LiteRT and ExecuTorch of the Python
 * wheels behind their Android classes (module host). Skips, with a reason, what is not there.
 */
package io.pocketbert.app

import android.os.Looper
import io.pocketbert.chat.BundledModels
import io.pocketbert.chat.Choice
import io.pocketbert.core.Bundle
import io.pocketbert.core.BundleSource
import io.pocketbert.core.Engine
import io.pocketbert.core.EngineException
import io.pocketbert.core.EngineKind
import io.pocketbert.executorch.ExecuTorchEngine
import io.pocketbert.litert.LiteRtEngine
import kotlinx.coroutines.Dispatchers
import org.junit.Assume.assumeTrue
import org.junit.Before
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.Shadows.shadowOf
import org.robolectric.annotation.Config
import org.robolectric.annotation.GraphicsMode
import org.robolectric.shadows.ShadowDialog
import java.io.ByteArrayInputStream
import java.io.File
import java.text.NumberFormat
import kotlin.test.assertEquals
import kotlin.test.assertNotNull
import kotlin.test.assertNull
import kotlin.test.assertTrue

@RunWith(PhoneRunner::class)
@GraphicsMode(GraphicsMode.Mode.NATIVE)
@Config(sdk = [35], application = TestApplication::class, qualifiers = "w411dp-h891dp-xhdpi")
class RealEnginesTest {
    private val percents = NumberFormat.getPercentInstance().apply { minimumFractionDigits = 1 }

    @Before
    fun realParts() {
        val natives = File(System.getProperty("pocketbert.natives")!!)
        for (library in listOf("libLiteRt.so", "libexecutorch_host.so")) {
            assumeTrue("$library is not in $natives: run tests/android_natives.py", File(natives, library).exists())
        }
        val bundles = File(System.getProperty("pocketbert.bundles")!!)
        assumeTrue("there are no bundles in $bundles: run make demo", listOf("albert", "distilbert").all { File(bundles, it).exists() })
        TestApplication.models = null
    }

    private fun kinds(app: ChatApplication) = listOf(LiteRtEngine.kind(2, File(app.cacheDir, "litert")), ExecuTorchEngine.kind(2))

    /** The app's models with other engines, another source, or another disk. */
    private fun use(
        engines: (ChatApplication) -> List<EngineKind> = ::kinds,
        change: (String, ByteArray) -> ByteArray = { _, content -> content },
        freeBytes: (File) -> Long = File::getUsableSpace,
    ) {
        TestApplication.models = { app ->
            val source = { name: String ->
                BundleSource { path -> ByteArrayInputStream(change(path, app.assets.open("$name/$path").readBytes())) }
            }
            BundledModels({ listOf("albert") }, source, engines(app), File(app.filesDir, "models"), Dispatchers.Default, "test", freeBytes)
        }
    }

    private fun Phone.shown() = "${text(R.id.label)} ${text(R.id.percent)}".trim()

    /** What the strip must read for every beginning of a text: asked of an engine of the test's own. */
    private fun truths(phone: Phone, text: String): Map<String, String> {
        val folder = phone.application.filesDir.resolve("models/bundles/distilbert").listFiles()!!.single()
        val bundle = Bundle.open(folder)
        val artifact = bundle.manifest.artifact("tflite")
        val engine = LiteRtEngine.open(File(folder, artifact.path), bundle.manifest, artifact, 2, phone.application.cacheDir.resolve("own"))
        return io.pocketbert.core.TextClassifier(bundle, artifact, engine).use { classifier ->
            (1..text.length).map(text::take).associateWith {
                val best = classifier.classify(it).first()
                "${if (best.label == "POSITIVE") "😊 Positive" else "😕 Negative"} ${percents.format(best.score)}"
            }
        }
    }

    @Test
    fun typedAtFiveFifteenAndFiftyKeysASecondTheLabelIsThatOfTheText() {
        val phone = Phone().start()
        assertEquals(Choice("distilbert", "tflite"), phone.chat.state.value.opened?.choice, phone.texts().toString())
        for ((keys, text) in listOf(5 to "so good", 15 to "what a lovely film", 50 to "i have seldom laughed so little, and the end was worse than the rest")) {
            val truths = truths(phone, text)
            val labels = mutableListOf<String>()
            for (letter in text) {
                val next = System.nanoTime() + 1_000_000_000 / keys
                phone.input.append(letter.toString())
                do {
                    if (phone.text(R.id.percent).isNotEmpty()) {
                        assertEquals(truths[phone.input.text.toString()], phone.shown())
                        labels += phone.input.text.toString()
                    }
                    Thread.sleep(1)
                    shadowOf(Looper.getMainLooper()).idle()
                } while (System.nanoTime() < next)
            }
            phone.settle { phone.shown() == truths[text] }
            println("real LiteRT at $keys keys a second: ${labels.distinct().size} of ${text.length} texts were seen labelled; " +
                "median %.2f ms".format(phone.chat.state.value.figures.percentileMs(0.5)))
            assertTrue(labels.distinct().size > FEWEST, "labels change while typing")
            phone.send()
        }
    }

    @Test
    fun everyModelWithEveryEngineAnswersAndSaysHowItDidInTheSelfCheck() {
        val phone = Phone().start()
        assertEquals(4, phone.chat.state.value.choices.size)
        for (choice in phone.chat.state.value.choices) {
            phone.chat.choose(choice)
            phone.settle { phone.chat.state.value.opened?.choice == choice }
            phone.say("what a lovely film")
            assertEquals("POSITIVE", phone.chat.state.value.messages.last { it.verdict != null }.verdict?.label)
            assertTrue(assertNotNull(phone.chat.state.value.opened?.gap) < 0.05f)
        }
        assertEquals(emptyMap(), phone.chat.state.value.failures)
        assertEquals(9, phone.rows().size, "a greeting, four messages, four answers")
        phone.shoot("real-engines")
        phone.chat.showSheet(true)
        phone.settle { ShadowDialog.getLatestDialog()?.isShowing == true && phone.chat.state.value.memory != null }
        phone.shoot("real-engines-sheet", ShadowDialog.getLatestDialog().window!!.decorView)
    }

    @Test
    fun aConversationInTheLight() = conversation("real-light")

    @Test
    @Config(qualifiers = "+night")
    fun aConversationInTheDark() = conversation("real-dark")

    @Test
    @Config(fontScale = 2f)
    fun aConversationInTheLargestFont() = conversation("real-font-scale-2")

    private fun conversation(picture: String) {
        val phone = Phone().start().bars(top = 24, bottom = 16)
            .say("what a lovely film, i laughed the whole way through")
            .say("the soup was cold and the waiter rude")
            .type("but the dessert was gorgeous 😋")
        assertEquals(listOf("POSITIVE", "NEGATIVE"), phone.chat.state.value.messages.mapNotNull { it.verdict?.label })
        assertTrue("Positive" in phone.shown())
        phone.shoot(picture)
    }

    @Test
    fun aPasteARotationAndAnEndedProcess() {
        val phone = Phone().start()
        phone.input.setText("what a lovely film 😀 ".repeat(5000))
        phone.settle { phone.chat.state.value.draft.answer != null }
        phone.send()
        phone.type("and the end")
        phone.rotate("w891dp-h411dp-land-xhdpi")
        assertEquals("and the end", phone.input.text.toString())
        Thread.sleep(300)
        val rows = phone.rows()
        val start = System.nanoTime()
        phone.killAndReturn()
        phone.settle { phone.text(R.id.percent).isNotEmpty() }
        println("from a new process to the first label: %.0f ms".format((System.nanoTime() - start) / 1e6))
        assertEquals(rows, phone.rows())
        assertEquals("and the end", phone.input.text.toString())
    }

    @Test
    fun aDamagedArtifactIsNotUsedAndTheOtherEngineAnswers() {
        use(change = { path, content -> if (path == "model.tflite") content.apply { this[size / 2] = (this[size / 2] + 1).toByte() } else content })
        val phone = Phone().start().type("what a lovely film")
        assertEquals(
            "ALBERT with LiteRT cannot be used: model.tflite is not the file that was exported: copy or export the bundle again. " +
                "ALBERT with ExecuTorch answers instead.",
            phone.text(R.id.notice),
        )
        assertTrue("Positive" in phone.shown())
    }

    @Test
    fun aFullDiskIsSaidAndWithRoomItWorks() {
        var free = 0L
        use(freeBytes = { free })
        val phone = Phone().start()
        assertTrue("No model can be used. ALBERT with LiteRT: there is no room for the model" in phone.text(R.id.notice))
        free = Long.MAX_VALUE
        phone.chat.choose(Choice("albert", "tflite"))
        phone.settle { phone.chat.state.value.opened != null }
        assertEquals("", phone.text(R.id.notice))
    }

    @Test
    fun anEngineThatCannotLoadIsReplaced() {
        use(engines = { app ->
            listOf(EngineKind("tflite", "litert") { throw UnsatisfiedLinkError("no library for this processor") }, kinds(app)[1])
        })
        val phone = Phone().start().type("what a lovely film")
        assertTrue("ALBERT with LiteRT cannot be used: no library for this processor" in phone.text(R.id.notice))
        assertTrue("Positive" in phone.shown())
    }

    @Test
    fun anEngineThatComputesSomethingElseIsNeverUsed() {
        var asked = 0
        val wrong = object : Engine {
            override fun run(inputIds: IntArray) = floatArrayOf(5f, -5f).also { asked++ }
        }
        use(engines = { app -> listOf(EngineKind("tflite", "wrong 1.0") { wrong }, kinds(app)[1]) })
        val phone = Phone().start().type("what a lovely film")
        assertTrue("is computed wrongly here" in phone.text(R.id.notice))
        assertTrue("Positive" in phone.shown())
        val before = asked
        phone.killAndReturn()
        phone.settle { phone.text(R.id.notice).isNotEmpty() }
        assertEquals(before, asked, "the outcome was kept")
    }

    @Test
    fun anEngineThatBreaksDownWhileItAnswersIsReplaced() {
        var broken = false
        use(engines = { app ->
            val (real, other) = kinds(app)
            val breaking = EngineKind(real.format, real.version) { installed ->
                val engine = real.open(installed)
                object : Engine {
                    override fun run(inputIds: IntArray) = if (broken) throw EngineException("it broke down") else engine.run(inputIds)

                    override fun close() = engine.close()
                }
            }
            listOf(breaking, other)
        })
        val phone = Phone().start().type("what")
        assertNull(phone.chat.state.value.failures.values.firstOrNull())
        broken = true
        phone.type(" a lovely film")
        phone.settle { phone.text(R.id.percent).isNotEmpty() }
        assertTrue("it broke down" in phone.text(R.id.notice))
        assertTrue("Positive" in phone.shown())
    }

    private companion object {
        const val FEWEST = 3 // a busy machine shows few labels between keystrokes, an idle one all
    }
}
